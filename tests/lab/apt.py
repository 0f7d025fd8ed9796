"""The computer's own Debian sources, read for another Debian release; sources.list(5)."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.lab.host import LabError, run

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
OS_RELEASE = Path("/etc/os-release")
_KEPT_OPTIONS = ("signed-by", "trusted", "check-valid-until", "check-date")


@dataclass(frozen=True)
class Source:
    """One suite of one archive.

    Args:
        uri: where the archive is.
        suite: the suite's name there.
        components: its parts, such as `main`.
        options: options that the lab keeps, by their names in the one-line format.
    """

    uri: str
    suite: str
    components: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()

    def line(self) -> str:
        """Return it in the one-line format."""
        options = " ".join(f"{name}={value}" for name, value in self.options)
        return " ".join(("deb", *([f"[{options}]"] if options else ()), self.uri, self.suite, *self.components))


def parse_one_line(text: str) -> list[Source]:
    """Read sources in the one-line format.

    Args:
        text: the content of a `.list` file.

    Returns:
        The binary sources; `deb-src` and what cannot be read is left out.
    """
    found = []
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)", line.strip())
        if match:
            options = dict(word.partition("=")[::2] for word in (match[1] or "").split())
            found.append(Source(match[2], match[3], tuple(match[4].split()), _kept(options)))
    return found


def parse_deb822(text: str) -> list[Source]:
    """Read sources in the deb822 format.

    Args:
        text: the content of a `.sources` file.

    Returns:
        The enabled binary sources, one for each URI and suite.
    """
    found = []
    stanzas = re.split(r"\n\s*\n", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    for stanza in stanzas:
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1].isspace():
                fields[name] = fields.get(name, "") + "\n" + line.strip()
            else:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in (
            "no",
            "false",
        ):
            continue
        found += [
            Source(uri, suite, tuple(fields.get("components", "").split()), _kept(fields))
            for uri in fields.get("uris", "").split()
            for suite in fields.get("suites", "").split()
        ]
    return found


def _kept(options: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    # A key written into the sources file itself has no place in the one-line format.
    return tuple(
        (name, options[name]) for name in _KEPT_OPTIONS if name in options and not re.search(r"\s", options[name])
    )


def suites_for(
    sources: Iterable[Source], codename: str, release: str, origin: Callable[[Source], str | None]
) -> list[Source]:
    """Turn the sources of one Debian release into those of another.

    Args:
        sources: what the computer has.
        codename: the computer's release, such as `bookworm`.
        release: the wanted one, such as `trixie`.
        origin: what the Release file of a source calls its origin; None if that was never downloaded.

    Returns:
        Debian's own sources for the wanted release: those with the release's suites whose origin is Debian
        or, where that is unknown, that name Debian's own keyring or none. Only `main` is kept.
    """
    found: dict[tuple[str, str], Source] = {}
    for source in sources:
        for name in (codename, "stable"):
            if source.suite in (name, f"{name}-updates", f"{name}-security"):
                break
        else:
            continue
        options = dict(source.options)
        known = origin(source)
        if known is None:
            known = "Debian" if "debian-archive" in options.get("signed-by", "debian-archive") else "unknown"
        if known != "Debian" or "main" not in source.components or source.uri.startswith("cdrom:"):
            continue
        options.setdefault("signed-by", KEYRING)
        suite = release + source.suite.removeprefix(name)
        found.setdefault((source.uri, suite), Source(source.uri, suite, ("main",), tuple(options.items())))
    return list(found.values())


def downloaded_origin(source: Source, lists: Path = Path("/var/lib/apt/lists")) -> str | None:
    """Return the origin that a source's downloaded Release file states.

    Args:
        source: the source.
        lists: apt's directory of downloaded lists.

    Returns:
        The word after `Origin:`, or None if nothing was downloaded.
    """
    stem = re.sub(r"^[a-z+]+:/*", "", source.uri).rstrip("/").replace("_", "%5f").replace("/", "_")
    for name in ("InRelease", "Release"):
        path = lists / f"{stem}_dists_{source.suite}_{name}"
        if path.exists():
            match = re.search(r"^Origin: *(.*)$", path.read_text(errors="replace"), re.MULTILINE)
            return match[1].strip() if match else ""
    return None


def machine_sources(release: str) -> list[Source]:
    """Return the sources from which the lab takes a Debian release on this computer.

    Args:
        release: the wanted release's codename.

    Returns:
        The same archives that the computer itself uses, or on Ubuntu the one that DEBIAN_MIRROR names.

    Raises:
        LabError: there is none; the message says what to do.
    """
    system = dict(
        line.replace('"', "").partition("=")[::2] for line in OS_RELEASE.read_text().splitlines() if "=" in line
    )
    mirror = os.environ.get("DEBIAN_MIRROR")
    if mirror:
        signed = (("signed-by", KEYRING),)
        return [Source(mirror, release + part, ("main",), signed) for part in ("", "-updates")]
    if system.get("ID") != "debian":
        raise LabError(
            f"{system.get('PRETTY_NAME', 'this system')} is not Debian: set DEBIAN_MIRROR to the address of "
            "a Debian archive (the directory that has dists/ and pool/ in it)"
        )
    sources = []
    for path in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))):
        if path.suffix == ".list" and path.exists():
            sources += parse_one_line(path.read_text())
        elif path.suffix == ".sources":
            sources += parse_deb822(path.read_text())
    found = suites_for(sources, system.get("VERSION_CODENAME", ""), release, downloaded_origin)
    if release not in {source.suite for source in found}:
        raise LabError(f"no Debian source for {system.get('VERSION_CODENAME')} main in /etc/apt: cannot get {release}")
    return found


def acquire_settings() -> list[str]:
    """Return how the computer's apt reaches its archives (proxies, checks), as lines of apt.conf(5)."""
    wanted = re.compile(r"Acquire::(https?|ftp|Check-|Retries|Max-ValidTime|ForceIPv)", re.IGNORECASE)
    return [line for line in run(["apt-config", "dump"]).splitlines() if wanted.match(line) and '""' not in line]


class Downloads:
    """Fetches packages for another root than the computer's own.

    Args:
        directory: an empty directory to work in; the packages end up in its `archives`.
        sources: where they come from.
        status: the dpkg status of the root they are for; nothing is installed there if None.
    """

    def __init__(self, directory: Path, sources: Iterable[Source], status: Path | None = None) -> None:
        self.archives = directory / "archives"
        for path in (directory / "lists" / "partial", self.archives / "partial", directory / "empty"):
            path.mkdir(parents=True)
        own_status = directory / "status"
        own_status.touch()
        (directory / "sources.list").write_text("".join(source.line() + "\n" for source in sources))
        self._config = directory / "apt.conf"
        settings = {
            "Dir::State": directory,
            "Dir::State::lists": directory / "lists",
            "Dir::State::status": status or own_status,
            "Dir::Cache": directory,
            "Dir::Cache::archives": self.archives,
            "Dir::Etc::sourcelist": directory / "sources.list",
            "Dir::Etc::sourceparts": directory / "empty",
            "Dir::Etc::preferencesparts": directory / "empty",
            "Dir::Etc::preferences": directory / "none",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        lines = [f'{name} "{value}";' for name, value in settings.items()]
        self._config.write_text("\n".join([*lines, *acquire_settings(), ""]))
        self._apt("apt-get", "update", "--error-on=any")

    def _apt(self, *argv: str) -> str:
        return run([argv[0], "-q", *argv[1:]], env={"APT_CONFIG": str(self._config)}, cwd=self.archives)

    def dependency(self, package: str, prefix: str) -> str:
        """Return the first dependency of a package whose name begins with a prefix.

        Args:
            package: the package.
            prefix: the beginning of the dependency's name.

        Raises:
            LabError: it has none.
        """
        match = re.search(rf"Depends: ({re.escape(prefix)}\S*)", self._apt("apt-cache", "depends", package))
        if not match:
            raise LabError(f"{package}: no dependency on {prefix}*")
        return match[1]

    def only(self, package: str) -> Path:
        """Download one package without its dependencies.

        Args:
            package: its name.

        Returns:
            The .deb file.
        """
        self._apt("apt-get", "download", package)
        return next(self.archives.glob(f"{package}_*.deb"))

    def with_dependencies(self, packages: Iterable[str]) -> None:
        """Download packages and everything they need that the root lacks.

        Args:
            packages: their names.
        """
        self._apt("apt-get", "install", "--yes", "--download-only", *packages)
