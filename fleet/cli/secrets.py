"""`fleet secrets`: the encrypted files, from the keyboard."""

from __future__ import annotations

import base64
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

import click
from pydantic import SecretStr

from deploys.services.totp import seed
from fleet.load import SITES, load
from fleet.model.secret import SSH_HOST_KEY, Secret
from fleet.model.site import Site
from fleet.secrets import audit, generate, hostkeys
from fleet.secrets.sheet import from_sheet, to_sheet
from fleet.secrets.store import Document, Owned, SecretsError, Store, shown
from fleet.secrets.vault import by_file, lacking
from fleet.secrets.wanted import wanted

TYPED = 6
"""How many of a fingerprint's last characters the owner types."""

_show = click.option("--show", "plain", is_flag=True, help="Print the plain commands instead.")
_yes = click.option("--yes", is_flag=True, help="The fingerprint was compared before.")
_replace = click.option("--replace", is_flag=True, help="Give up the key that is there.")


class _OneLine(click.Group):
    """Ends a verb that cannot go on with one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SecretsError as error:
            raise SystemExit(str(error)) from None


@click.group(cls=_OneLine)
@click.option("--lab", is_flag=True, help="The lab's secrets instead of production's.")
@click.pass_context
def secrets(context: click.Context, lab: bool) -> None:
    """Edit, show, check and re-encrypt the secrets of hosts and of pairs (A--B) of hosts."""
    if context.obj is None:
        fleet, _ = load("lab" if lab else SITES[0])
        context.obj = Store(fleet, lambda site: site.secrets)


@secrets.command()
@click.argument("of", metavar="HOST")
@_show
@click.pass_obj
def edit(store: Store, of: str, plain: bool) -> None:
    """Edit the secrets of HOST, or of a pair A--B, in $EDITOR."""
    owned = _owned(store, of)
    if plain:
        _print(_decrypt(store, owned), _encrypt(store, owned))
        return
    store.readers_for(owned)
    document = _read_or_new(store, owned)
    needs = _needs(store, owned)
    before = to_sheet(owned.of, _values(document), needs)
    after = before
    while True:
        after = _edited(after)
        try:
            values = from_sheet(after)
        except ValueError as error:
            complaints = [str(error)]
        else:
            if after == before or not values:
                click.echo(f"{'unchanged' if after == before else 'empty'}: nothing was written")
                return
            changed = document.with_values(values, date.today())
            known = dict.fromkeys((*needs, SSH_HOST_KEY))
            complaints = lacking(changed, [secret for secret in known if secret.name in values])
        if not complaints:
            break
        for complaint in complaints:
            click.echo(complaint, err=True)
        if not click.confirm("Edit again?", default=True):
            click.echo("nothing was written")
            return
    store.write(owned, changed)
    for remark in lacking(changed, needs):
        click.echo(f"{shown(owned.path)}: still {remark}")
    click.echo(f"{shown(owned.path)}: written")


@secrets.command()
@click.argument("of", metavar="HOST")
@click.argument("name", required=False)
@_show
@click.pass_obj
def show(store: Store, of: str, name: str | None, plain: bool) -> None:
    """Show the secrets of HOST, or of a pair A--B, or one of them; on a terminal only."""
    owned = _owned(store, of)
    if plain:
        _print(_decrypt(store, owned))
        return
    if not sys.stdout.isatty():
        raise SecretsError("secrets are shown on a terminal only, not in a file or a pipe")
    document = store.read(owned, owned.sites)
    if name is not None and name not in document.values:
        there = ", ".join(sorted(document.values)) or "none"
        raise SecretsError(f"{shown(owned.path)}: has no {name}; there are: {there}")
    for each, entry in sorted(document.values.items()):
        if name in (None, each):
            click.echo(f"{each}, of {entry.changed}:\n{entry.value.get_secret_value()}")


@secrets.command()
@click.argument("site")
@_show
@click.pass_obj
def rekey(store: Store, site: str, plain: bool) -> None:
    """Encrypt all files of SITE for those in its readers.txt; list what a removed reader has seen."""
    this = _site(store, site)
    if plain:
        for owned in store.of_site(this):
            there = shown(owned.path)
            move = _join(["mv", f"{there}.new", there])
            _print(f"{_decrypt(store, owned)} | {_encrypt(store, owned, '.new')} && {move}")
        return
    done = audit.rekey(store, this)
    for path in done.written:
        click.echo(f"{shown(path)}: written")
    for line in done.seen:
        click.echo(str(line))
    click.echo(f"{site}: {len(done.written)} files written, {len(done.seen)} values to change")


@secrets.command()
@click.argument("site", required=False)
@click.pass_obj
def check(store: Store, site: str | None) -> None:
    """Say what is wrong with the secrets of SITE, or of all sites."""
    sites = store.fleet.sites if site is None else (_site(store, site),)
    lines = audit.problems(store, sites, lambda host: wanted(store.fleet, host))
    for line in lines:
        click.echo(line)
    if lines:
        sys.exit(1)
    click.echo(f"{', '.join(each.name for each in sites)}: nothing is wrong")


@secrets.command()
@click.argument("person")
@click.argument("site")
@click.option("--replace", is_flag=True, help="Make a new one; what is in the phone ends.")
@_show
@click.pass_obj
def totp(store: Store, person: str, site: str, replace: bool, plain: bool) -> None:
    """Give PERSON one secret for codes on all hosts of SITE, and show it for the phone; on a terminal only."""
    this = _site(store, site)
    known = {each.name: each for each in this.people}
    if person not in known:
        raise SecretsError(f"{site}: no person {person!r}: there are {', '.join(sorted(known)) or 'none'}")
    secret = seed(known[person])
    files = [store.of_host(host) for host in this.hosts if secret in wanted(store.fleet, host)]
    if not files:
        raise SecretsError(f"{site}: no host asks {person} for a code")
    if plain:
        for owned in files:
            _print(_decrypt(store, owned), _encrypt(store, owned))
        return
    if not sys.stdout.isatty():
        raise SecretsError("secrets are shown on a terminal only, not in a file or a pipe")
    documents = [(owned, _read_or_new(store, owned)) for owned in files if store.readers_for(owned)]
    values = {each.values[secret.name].value for _, each in documents if secret.name in each.values}
    if len(values) > 1 and not replace:
        raise SecretsError(f"{site}: {secret.name} differs from host to host; --replace makes one for all")
    value = generate.value(secret.shape) if replace or not values else values.pop()
    for owned, document in documents:
        changed = document.with_values({**_values(document), secret.name: value}, date.today())
        if changed != document:
            store.write(owned, changed)
            click.echo(f"{shown(owned.path)}: written")
    click.echo(_otpauth(f"{site}:{person}", site, value))


def _otpauth(label: str, issuer: str, value: SecretStr) -> str:
    """Return the URI that an app for codes takes, also as a QR code: ``qrencode -t utf8``.

    Source: Google Authenticator's "Key Uri Format"; SHA-1, six digits and 30 seconds are what it has by default.
    """
    secret = base64.b32encode(bytes.fromhex(value.get_secret_value())).decode()
    return f"otpauth://totp/{quote(label)}?{urlencode({'secret': secret, 'issuer': issuer})}"


@secrets.group()
def hostkey() -> None:
    """The SSH host key of a host: its private half in the encrypted file, the public one beside it."""


@hostkey.command()
@click.argument("name", metavar="HOST")
@_replace
@_show
@click.pass_obj
def make(store: Store, name: str, replace: bool, plain: bool) -> None:
    """Make a new host key for HOST; the next deploy sends it."""
    owned = _host(store, name)
    if plain:
        _print(f"ssh-keygen -t ed25519 -N '' -f {SSH_HOST_KEY.name}", _decrypt(store, owned), _encrypt(store, owned))
        return
    _keep_key(store, owned, hostkeys.make(), replace)


@hostkey.command()
@click.argument("name", metavar="HOST")
@_yes
@_replace
@_show
@click.pass_obj
def adopt(store: Store, name: str, yes: bool, replace: bool, plain: bool) -> None:
    """Take the host key of HOST from standard input, piped over a connection that you trust."""
    owned = _host(store, name)
    if plain:
        _print(f"ssh-keygen -lf /etc/ssh/{SSH_HOST_KEY.name}", _decrypt(store, owned), _encrypt(store, owned))
        return
    try:
        key = hostkeys.adopt(sys.stdin.read())
    except ValueError as error:
        raise SecretsError(f"standard input: {error}") from None
    if not yes:
        _word(name, hostkeys.fingerprint(hostkeys.public_half(key)))
    _keep_key(store, owned, key, replace)


def _keep_key(store: Store, owned: Owned, key: SecretStr, replace: bool) -> None:
    document = _read_or_new(store, owned)
    values = _values(document)
    if values.get(SSH_HOST_KEY.name, key) != key and not replace:
        raise SecretsError(f"{shown(owned.path)}: has another host key; --replace gives it up")
    store.write(owned, document.with_values({**values, SSH_HOST_KEY.name: key}, date.today()))
    click.echo(f"{owned.of}: {hostkeys.fingerprint(hostkeys.public_half(key))}")
    click.echo(f"{shown(owned.path)}, {shown(store.public_key_file(store.fleet.host(owned.of)))}: written")


def _word(name: str, fingerprint: str) -> None:
    """Have the owner say that this is the key; standard input is the key, so he is asked on his terminal."""
    try:
        with Path("/dev/tty").open("w") as out, Path("/dev/tty").open() as answers:
            out.write(
                f"{name}: {fingerprint}\nDoes ssh-keygen -lf on its console say so? Its last {TYPED} characters: "
            )
            out.flush()
            typed = answers.readline().strip()
    except OSError:
        raise SecretsError("no terminal to compare the fingerprint on; --yes says that it was compared") from None
    if typed != fingerprint[-TYPED:]:
        raise SecretsError(f"{name}: {typed!r} is not how the fingerprint ends; nothing was written")


def _owned(store: Store, of: str) -> Owned:
    one, pair, other = of.partition("--")
    return store.of_pair((one, other)) if pair else _host(store, of)


def _host(store: Store, name: str) -> Owned:
    known = {host.name: host for host in store.fleet.hosts()}
    if name not in known:
        raise SecretsError(f"no host {name!r}: there are {', '.join(sorted(known))}")
    return store.of_host(known[name])


def _site(store: Store, name: str) -> Site:
    known = {site.name: site for site in store.fleet.sites}
    if name not in known:
        raise SecretsError(f"no site {name!r}: there are {', '.join(sorted(known))}")
    return known[name]


def _read_or_new(store: Store, owned: Owned) -> Document:
    if owned.path.exists():
        return store.read(owned, owned.sites)
    return Document(kind=store.place(owned.sites[0]).kind, of=owned.of)


def _values(document: Document) -> dict[str, SecretStr]:
    return {name: entry.value for name, entry in document.values.items()}


def _needs(store: Store, owned: Owned) -> list[Secret]:
    """Return what the hosts of a file want from it."""
    found: list[Secret] = []
    for host in store.fleet.hosts():
        if host.name in owned.of.split("--"):
            for file, needed in by_file(store, host, wanted(store.fleet, host)):
                found += needed if file.of == owned.of else []
    return list(dict.fromkeys(found))


def _edited(text: str) -> str:
    """Return `text` as the owner's editor leaves it, in a file of his alone: in memory where there is room for it."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    places = (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm")  # noqa: S108 - a folder of our own in it
    place = next((one for one in places if one and os.access(one, os.W_OK)), None)
    with _interruptible():
        folder = Path(tempfile.mkdtemp(prefix="homefleet-", dir=place))
        try:
            sheet = folder / "secrets.yaml"
            sheet.touch(mode=0o600)
            sheet.write_text(text)
            if subprocess.run([*shlex.split(editor), str(sheet)], check=False).returncode:
                raise SecretsError(f"{editor}: failed; nothing was written")
            return sheet.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise SecretsError(f"{editor}: {error.strerror}; nothing was written") from None
        finally:
            shutil.rmtree(folder)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let a signal that would end the process end it in order, so that no plain text is left behind."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        raise SystemExit(128 + number)

    kept: list[tuple[int, Callable[[int, FrameType | None], Any] | int | None]] = [
        (number, signal.signal(number, leave)) for number in (signal.SIGTERM, signal.SIGHUP)
    ]
    try:
        yield
    finally:
        for number, handler in kept:
            signal.signal(number, handler)


def _print(*commands: str) -> None:
    for command in commands:
        click.echo(command)


def _decrypt(store: Store, owned: Owned) -> str:
    keys = [word for site in owned.sites for word in ("-i", shown(store.identity_file(site)))]
    return f"age --decrypt {_join([*keys, shown(owned.path)])}"


def _encrypt(store: Store, owned: Owned, ending: str = "") -> str:
    readers = [word for site in owned.sites for word in ("-R", shown(store.readers_file(site)))]
    return f"age --encrypt {_join([*readers, '-o', shown(owned.path) + ending])}"


def _join(words: list[str]) -> str:
    # A leading ~ is for the shell to expand, so it is not quoted.
    return " ".join(word if word.startswith("~/") else shlex.quote(word) for word in words)
