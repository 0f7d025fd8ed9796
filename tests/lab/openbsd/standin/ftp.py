"""ftp(1) as it is used to fetch: `ftp [-MV] -o FILE URL`; contract 9."""

import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from .program import fail, operand, options, warn
from .unmodelled import unmodelled

NOT_MODELLED = (
    "ftp: ftp:// and interactive use, -C -N -S -s -T -u, proxies, the progress meter",
    "ftp: the words of connection errors behind `ftp: URL: `",
)

_USAGE = "usage: ftp [-46AadEegiMmnptVv] [-o output] [-U useragent] [-w seconds] url ...\n"
_DEFAULT_WAIT = 60
_CHUNK = 1 << 16


def _copy(source: BinaryIO, target: BinaryIO) -> int:
    total = 0
    while chunk := source.read(_CHUNK):
        target.write(chunk)
        total += len(chunk)
    return total


def _fetch(argv: Sequence[str], url: str, output: str, given: dict[str, str]) -> bool:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in {"http", "https", "file"}:
        unmodelled("ftp", argv, f"URL {url}")
    name = output or Path(parts.path).name
    if not name:
        fail("ftp", f"No filename after directory (use -o): {url}")
    try:
        with _open(url, parts, given) as source:
            if name == "-":
                _copy(source, sys.stdout.buffer)
                sys.stdout.flush()
                return True
            target = operand(name)
            part = target.with_name(f"{target.name}.{os.getpid()}.part")
            try:
                with part.open("wb") as file:
                    total = _copy(source, file)
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
    except urllib.error.HTTPError as error:
        warn("ftp", f"Error retrieving {url}: {error.code} {error.reason}")
        return False
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        text = os.strerror(reason.errno) if isinstance(reason, OSError) and reason.errno else str(reason)
        warn("ftp", f"{url}: {text}")
        return False
    if "-V" not in given:
        sys.stderr.write(f"{total} bytes received\n")
    return True


def _open(url: str, parts: urllib.parse.SplitResult, given: dict[str, str]) -> BinaryIO:
    if parts.scheme == "file":
        return operand(urllib.parse.unquote(parts.path)).open("rb")
    request = urllib.request.Request(url, headers={"User-Agent": given.get("-U", "OpenBSD ftp")})
    # An environment without proxies, as a fetch of the lab never leaves it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    response: BinaryIO = opener.open(request, timeout=int(given.get("-w", _DEFAULT_WAIT)))
    return response


def main(argv: Sequence[str]) -> int:
    """Run ftp(1).

    Args:
        argv: the arguments.

    Returns:
        The exit code: 0 if everything was fetched.
    """
    flags, urls = options("ftp", argv, "46AaCc:dD:EegiMmN:no:Pp:S:s:TtU:uVvw:", _USAGE)
    given = dict(flags)
    unknown = given.keys() - {"-4", "-6", "-E", "-M", "-m", "-n", "-o", "-U", "-V", "-v", "-w"}
    if unknown or not urls:
        unmodelled("ftp", argv, f"{' '.join(sorted(unknown)) or 'interactive use'}")
    if "-o" in given and len(urls) > 1 and given["-o"] != "-":
        unmodelled("ftp", argv, "several URLs with -o")
    good = [_fetch(argv, url, given.get("-o", ""), given) for url in urls]
    return 0 if all(good) else 1
