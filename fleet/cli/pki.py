"""`fleet pki`: the private certificate authorities, from the keyboard."""

from __future__ import annotations

import getpass
import os
import secrets
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from fleet.cli import pki_hosts, pki_plain
from fleet.cli.console import ask
from fleet.load import SITES, load, pki_folder
from fleet.model.pki import Authority, Use
from fleet.model.site import Fleet
from fleet.pki import certificates
from fleet.pki.ca import Ca, NewKeyError, Renewed
from fleet.pki.due import State, survey
from fleet.pki.register import Begun, Crl, Dropped, Issued, Record, Register, Revoked, Root, Signs
from fleet.pki.rotation import to_reissue
from fleet.pki.store import Store
from fleet.pki.wanted import PkiError, Wanted, wanted
from fleet.secrets.store import replace

SHORTEST = 12
"""How many characters the passphrase of the roots has at least."""

_COLOURS = {State.FINE: None, State.DUE: "yellow", State.RED: "red"}

_show = click.option("--show", "plain", is_flag=True, help="Print the plain commands instead.")
_passphrase = click.option(
    "--passphrase-fd", type=int, help="Read the passphrase from this file descriptor instead of the terminal."
)
_authority = click.option("--authority", help="Whose certificate; needed where HOST has several for that use.")
_use = click.argument("use", type=click.Choice([str(use) for use in Use]))


@dataclass(frozen=True)
class Desk:
    """What the verbs work with: the files, the fleet, whether all of it is a lab's, and how its hosts are asked."""

    store: Store
    fleet: Fleet
    lab: bool = False
    ask: pki_hosts.Ask = ask

    @cached_property
    def wanted(self) -> tuple[Wanted, ...]:
        """What the inventory wants; PkiError if it cannot be."""
        return wanted(self.fleet)

    @property
    def now(self) -> datetime:
        """The time, in whole seconds as certificates have it."""
        return datetime.now(UTC).replace(microsecond=0)


def desk(fleet: Fleet) -> Desk:
    """Return the desk of `fleet`, whose PKI lies in the folder of its secrets; PkiError if it has several."""
    places = {(pki_folder(site), site.secrets.kind) for site in fleet.sites}
    if len(places) > 1:
        raise PkiError("the sites have their secrets in different folders: one PKI is for all of them")
    ((folder, kind),) = places
    return Desk(Store(folder), fleet, kind == "lab")


class _OneLine(click.Group):
    """Ends a verb that cannot go on with one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PkiError as error:
            raise SystemExit(str(error)) from None


@click.group(cls=_OneLine)
@click.option("--site", default=SITES[0], show_default=True, help="An inventory; those of production have one PKI.")
@click.option("--lab", "site", flag_value="lab", help="The lab's authorities: --site lab.")
@click.pass_context
def pki(context: click.Context, site: str) -> None:
    """Make, sign, renew, revoke and rotate the private certificates; what there is, and what is due."""
    if context.obj is None:
        fleet, _ = load(site)
        context.obj = desk(fleet)


@pki.command()
@_passphrase
@_show
@click.pass_obj
def init(this: Desk, passphrase_fd: int | None, plain: bool) -> None:
    """Make the root of each declared authority that has none."""
    if plain:
        for authority in _authorities(this.wanted).values():
            _print(pki_plain.root(this.store, authority))
        return
    if not this.wanted:
        raise PkiError("no service declares a certificate: there is no authority to make a root for")
    with _at_work(this, passphrase_fd) as ca:
        _tell(ca.init(), "every declared authority has its root")


@pki.command()
@_show
@click.pass_obj
def status(this: Desk, plain: bool) -> None:
    """Show every root, CRL and certificate with its days left; exits with 1 if anything is red."""
    register = this.store.read()
    if plain:
        for path in _current_files(this.store, register):
            click.echo(
                f"openssl x509 -in {pki_plain.name(path)} -noout -subject -serial -enddate -ext extendedKeyUsage"
            )
        return
    items = survey(register, this.wanted, this.now)
    if not items:
        click.echo("no service declares a certificate, and none was ever issued")
        return
    table = Table("authority", "what", "host", "use", "service", "serial", "days left", "state")
    for item in items:
        days = "-" if item.days is None else str(item.days)
        state = f"{item.state}: {item.why}" if item.why else str(item.state)
        cells = (item.authority, str(item.kind), item.host, str(item.use or ""), item.service, item.serial, days, state)
        table.add_row(*cells, style=_COLOURS[item.state])
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    sys.exit(1 if any(item.state is State.RED for item in items) else 0)


@pki.command()
@click.argument("host")
@_use
@_authority
@_passphrase
@_show
@click.pass_obj
def sign(this: Desk, host: str, use: str, authority: str | None, passphrase_fd: int | None, plain: bool) -> None:
    """Sign the request on standard input for HOST; print the certificate.

    Only its public key is taken. A new key for a name whose certificate is valid has to be confirmed on the terminal.
    """
    one = _wanted(this, host, use, authority)
    if plain:
        signer = this.store.read().signer(one.authority.name)
        _print(pki_plain.certificate(this.store, one, signer, pki_plain.request("request.pem")))
        return
    request = sys.stdin.read()
    with _at_work(this, passphrase_fd) as ca:
        issued = _sign(ca, one, request, _confirm)
    click.echo(issued.certificate, nl=False)


def _sign(ca: Ca, one: Wanted, request: str, confirm: Callable[[str, str], None]) -> Issued:
    try:
        return ca.sign(one, request)
    except NewKeyError as error:
        confirm(one.host, str(error))
        return ca.sign(one, request, rekey=True)


@pki.command()
@click.option("--requests", "folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--all", "everything", is_flag=True, help="Also what is not due yet.")
@_passphrase
@_show
@click.pass_obj
def renew(this: Desk, folder: Path | None, everything: bool, passphrase_fd: int | None, plain: bool) -> None:
    """Renew all that is due: the same keys, new certificates and CRLs; and sign what hosts have new keys for.

    The hosts are asked for their requests; for one that cannot be reached, AUTHORITY.HOST.USE.csr in the folder
    --requests will do. A new key for a name whose certificate is valid has to be confirmed on the terminal. Exits with
    1 if a request lacks.
    """
    if plain:
        _print(pki_plain.renewal(this.store, this.fleet, this.wanted))
        return
    asked = pki_hosts.requests(this.fleet, this.ask, this.wanted, folder)
    with _at_work(this, passphrase_fd) as ca:
        done = renewed(ca, asked.found, _confirm, everything=everything)
    _tell(done.done, "nothing was due" if not done.lacking and not done.refused else "nothing was renewed")
    for one in done.lacking:
        click.echo(f"{one.slot}: {asked.missing[one.slot]}")
    for line in done.refused:
        click.echo(line)
    for host in sorted(asked.silent - {one.host for one in done.lacking}):
        click.echo(f"{host}: cannot be asked whether it has a new key")
    sys.exit(1 if done.lacking or done.refused else 0)


def renewed(
    ca: Ca, requests: Mapping[str, str], confirm: Callable[[str, str], None], *, everything: bool = False
) -> Renewed:
    """Sign the keys that are new, then renew what is due; what is refused stops nothing else.

    Arguments: `requests` in PEM, by slot; `confirm`, called with a host and why it is asked, raises PkiError unless the
    owner says that the host has made a new key. He is asked for a name that was revoked, too: whoever is on that host
    can make another key.
    """
    before = len(ca.ledger.register.records)
    usable = dict(requests)
    refused: list[str] = []
    confirmed: set[str] = set()

    def once(host: str, why: str) -> None:
        if host not in confirmed:
            confirm(host, why)
            confirmed.add(host)

    for one in ca.wanted:
        current = ca.ledger.register.current(one.slot)
        if current is None or one.slot not in usable:
            continue
        try:
            public = certificates.key_of_request(one, usable[one.slot])
            if certificates.same_key(public, certificates.public_key(current.signed)):
                continue
            if ca.ledger.register.is_revoked(current):
                once(one.host, f"{one.slot}: was revoked, and the request has another key")
            else:
                _sign(ca, one, usable[one.slot], once)
        except PkiError as error:
            refused.append(str(error))
            del usable[one.slot]
    done = ca.renew(
        lambda need: {one.slot: usable[one.slot] for one in need if one.slot in usable}, everything=everything
    )
    lacking = tuple(one for one in done.lacking if one.slot not in requests)
    return Renewed(ca.ledger.register.records[before:], lacking, (*refused, *done.refused))


@pki.command()
@click.argument("host")
@_use
@_authority
@click.option("--reason", type=click.Choice(sorted(certificates.REASONS)), default="unspecified", show_default=True)
@_passphrase
@_show
@click.pass_obj
def revoke(
    this: Desk, host: str, use: str, authority: str | None, reason: str, passphrase_fd: int | None, plain: bool
) -> None:
    """Revoke the certificates of HOST for a use. OpenBSD's syslogd(8) reads no CRL: shut the host out, and rotate."""
    register = this.store.read()
    found = {
        issued.slot
        for issued in register.issued()
        if issued.host == host and issued.use == use and authority in (None, issued.authority)
    }
    if len(found) != 1:
        raise PkiError(_which(host, use, found))
    if plain:
        _print(pki_plain.revocation(this.store, found.pop(), reason, this.now))
        return
    with _at_work(this, passphrase_fd) as ca:
        _tell(ca.revoke(found.pop(), reason), "")


@pki.command()
@click.argument("authority")
@click.option("--held", "folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--begin", is_flag=True, help="Begin a rotation.")
@_passphrase
@_show
@click.pass_obj
def rotate_ca(
    this: Desk, authority: str, folder: Path | None, begin: bool, passphrase_fd: int | None, plain: bool
) -> None:
    """Do the next step of the rotation of AUTHORITY's root, if it is safe, and say what remains.

    The hosts are asked what their daemons have loaded; for one that cannot be reached, HOST.pem in the folder --held
    will do: its roots and its certificates.
    """
    if plain:
        _print(pki_plain.rotation(this.store, this.fleet, this.wanted, _declared(this, authority)))
        return
    register = this.store.read()
    live = {each.slot for each in to_reissue(register, authority, this.wanted)}
    under_way = [one for one in this.wanted if one.slot in live and len(register.roots(authority)) > 1]
    held, silent = pki_hosts.held(this.fleet, this.ask, under_way, folder)
    with _at_work(this, passphrase_fd) as ca:
        done, step = ca.rotate(authority, held, begin=begin)
    _tell(done, "nothing was done")
    for host, why in silent.items():
        click.echo(f"{host}: {why}")
    click.echo(f"{authority}: {step.remains}")


@pki.command()
@click.argument("authority", required=False)
@click.argument("host", required=False)
@click.argument("use", required=False, type=click.Choice([str(use) for use in Use]))
@_show
@click.pass_obj
def show(this: Desk, authority: str | None, host: str | None, use: str | None, plain: bool) -> None:
    """Show the register; or the trusted roots of AUTHORITY, or HOST's last certificate for USE, in PEM."""
    register = this.store.read()
    if authority is None:
        if plain:
            click.echo(f"cat {pki_plain.name(this.store.path)}")
            return
        for record in register.records:
            click.echo(f"{record.at:%Y-%m-%d %H:%M:%S} {_words(record)}")
        return
    if host is not None and use is None:
        raise PkiError("server or client? fleet pki show AUTHORITY HOST USE")
    path = this.store.certificate_path(authority, host, use) if host and use else this.store.roots_path(authority)
    found: Sequence[Root | Issued] = (
        [each for each in register.issued() if (each.authority, each.host, each.use) == (authority, host, use)][-1:]
        if host
        else register.roots(authority)
    )
    if not found:
        raise PkiError(f"{authority}: there is no such certificate")
    if plain:
        click.echo(f"openssl x509 -in {pki_plain.name(path)} -text")
        return
    click.echo("".join(each.certificate for each in found), nl=False)


@contextmanager
def _at_work(this: Desk, passphrase_fd: int | None) -> Iterator[Ca]:
    with this.store.opened() as ledger:
        first = not ledger.register.all_roots()
        yield Ca(ledger, this.wanted, this.now, _asker(this, passphrase_fd, first))


def _asker(this: Desk, passphrase_fd: int | None, first: bool) -> Callable[[], SecretStr]:
    """Return what asks for the passphrase; `first`, for that of the first root, which is typed twice."""

    def ask() -> SecretStr:
        if passphrase_fd is not None:
            with os.fdopen(passphrase_fd) as given:
                typed = given.readline().rstrip("\n")
        elif this.lab:
            typed = _lab_passphrase(this.store.folder / "passphrase")
        else:
            typed = _typed("Passphrase of the roots: ")
            if first and typed != _typed("Once more: "):
                raise PkiError("the two passphrases differ; nothing was made")
        if first and len(typed) < SHORTEST:
            raise PkiError(f"a passphrase has at least {SHORTEST} characters; nothing was made")
        return SecretStr(typed)

    return ask


def _typed(prompt: str) -> str:
    """Return what is typed on the terminal, unseen; standard input may be a request."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(prompt)
        except (getpass.GetPassWarning, EOFError):
            raise PkiError("no terminal to type the passphrase on: --passphrase-fd names where it is") from None


def _lab_passphrase(path: Path) -> str:
    """Return a lab's passphrase, which is made at first use."""
    if not path.exists():
        replace(path, f"{secrets.token_urlsafe(24)}\n".encode())
    return path.read_text().strip()


def _confirm(host: str, why: str) -> None:
    """Have the owner type the host's name; standard input is the request, so he is asked on his terminal."""
    try:
        with Path("/dev/tty").open("w") as out, Path("/dev/tty").open() as answers:
            out.write(f"{why}.\nIf {host} has made a new key, type its name: ")
            out.flush()
            typed = answers.readline().strip()
    except OSError:
        raise PkiError(f"{why}; no terminal to type the host's name on; nothing was signed") from None
    if typed != host:
        raise PkiError(f"{why}; {typed!r} is not {host!r}; nothing was signed")


def _wanted(this: Desk, host: str, use: str, authority: str | None) -> Wanted:
    found = [
        one for one in this.wanted if one.host == host and one.use == use and authority in (None, one.authority.name)
    ]
    if len(found) != 1:
        raise PkiError(_which(host, use, {one.slot for one in found}))
    return found[0]


def _declared(this: Desk, name: str) -> Authority:
    known = _authorities(this.wanted)
    if name not in known:
        raise PkiError(f"{name}: no service declares it: there are {', '.join(known) or 'none'}")
    return known[name]


def _which(host: str, use: str, found: set[str]) -> str:
    if not found:
        return f"{host}: no service there has a {use} certificate"
    return f"{host}: has several {use} certificates, name one with --authority: {', '.join(sorted(found))}"


def _tell(done: Sequence[Record], nothing: str) -> None:
    for record in done:
        click.echo(_words(record))
    if not done:
        click.echo(nothing)


def _words(record: Record) -> str:
    match record:
        case Begun():
            said = f"root {record.serial} begun"
        case Root():
            said = f"root {record.serial} made, until {record.signed.not_valid_after_utc:%Y-%m-%d}"
        case Issued():
            until = f"{record.signed.not_valid_after_utc:%Y-%m-%d}"
            said = f"{record.host} {record.use}: {record.serial}, until {until}, for {record.service}"
        case Revoked():
            said = f"{record.serial} revoked: {record.reason}"
        case Crl():
            said = f"CRL {record.number} of root {record.root}"
        case Signs():
            said = f"root {record.root} signs from now on"
        case Dropped():
            said = f"root {record.root} dropped"
    return f"{record.authority}: {said}"


def _authorities(every: Sequence[Wanted]) -> dict[str, Authority]:
    return {one.authority.name: one.authority for one in every}


def _current_files(store: Store, register: Register) -> list[Path]:
    roots = [store.root_path(root.authority, root.serial) for root in register.all_roots()]
    last = {each.slot: store.certificate_path(each.authority, each.host, each.use) for each in register.issued()}
    return [*roots, *last.values()]


def _print(commands: Iterable[str]) -> None:
    for command in commands:
        click.echo(command)
