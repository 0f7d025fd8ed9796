"""`fleet pki ... --show`: the commands of age(1), openssl(1) and ssh(1) that do the same by hand.

They keep no register: what is signed with them is to be signed again with `fleet pki` once that works.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from fleet.cli.console import as_root, ssh
from fleet.cli.pki_hosts import by_host
from fleet.load import ROOT
from fleet.model.pki import Authority
from fleet.model.site import Fleet
from fleet.pki import certificates
from fleet.pki.register import Issued, Register, Root
from fleet.pki.rotation import to_reissue
from fleet.pki.store import Store
from fleet.pki.wanted import Wanted


def root(store: Store, authority: Authority) -> Iterator[str]:
    """Yield what makes a root of `authority`."""
    key = name(store.key_path(authority.name, "SERIAL"))
    permitted = [f"permitted;DNS:.{domain}" for domain in authority.domains]
    permitted += [f"permitted;email:{certificates.NOWHERE}", f"permitted;URI:{certificates.NOWHERE}"]
    excluded = ["excluded;IP:0.0.0.0/0.0.0.0", "excluded;IP:::/::"]
    extensions = (
        "basicConstraints=critical,CA:TRUE,pathlen:0",
        "keyUsage=critical,keyCertSign,cRLSign",
        f"nameConstraints=critical,{','.join([*permitted, *excluded])}",
    )
    added = " ".join(f"-addext {shlex.quote(each)}" for each in extensions)
    yield f"openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 | age --encrypt --passphrase -o {key}"
    yield (
        f"age --decrypt {key} | openssl req -x509 -new -key /dev/stdin -subj "
        f"{shlex.quote(f'/O={authority.domains[0]}/CN={authority.name}')} "
        f"-days {authority.root_days} {added} -out {name(store.root_path(authority.name, 'SERIAL'))}"
    )


def certificate(store: Store, one: Wanted, signer: Root | None, source: str) -> Iterator[str]:
    """Yield what has `signer` sign the key that the openssl(1) command `source` prints."""
    serial = "SERIAL" if signer is None else signer.serial
    extensions = (
        "basicConstraints=critical,CA:FALSE",
        "keyUsage=critical,digitalSignature",
        f"extendedKeyUsage={one.use}Auth",
        f"subjectAltName={','.join(f'DNS:{each}' for each in one.names)}",
        "subjectKeyIdentifier=hash",
        "authorityKeyIdentifier=keyid",
    )
    yield f"{source} >key.pub"
    yield f"printf '%s\\n' {shlex.join(extensions)} >extensions"
    yield (
        f"age --decrypt {name(store.key_path(one.authority.name, serial))} | openssl x509 -new -force_pubkey key.pub "
        f"-subj {shlex.quote(f'/CN={one.host}')} -CA {name(store.root_path(one.authority.name, serial))} "
        f"-CAkey /dev/stdin -days {one.authority.leaf_days} -set_serial 0x$(openssl rand -hex 16) "
        f"-extfile extensions -out {one.slot}.pem"
    )


def request(path: str) -> str:
    """Return the command that checks the request in the file `path` and prints its key."""
    return f"openssl req -in {path} -verify -noout -pubkey"


def renewal(store: Store, fleet: Fleet, wanted: Sequence[Wanted]) -> Iterator[str]:
    """Yield what signs all of `wanted`: the keys of its certificates again, and what has none by its host's request."""
    register = store.read()
    for one in wanted:
        current = register.current(one.slot)
        source = _same_key(store, one)
        if current is None or register.is_revoked(current):
            asked = ["openssl", "req", "-new", "-key", one.declared.key_path, "-subj", f"/CN={one.host}"]
            yield f"{_asked(fleet, one.host, asked)} >{one.slot}.csr"
            source = request(f"{one.slot}.csr")
        yield from certificate(store, one, register.signer(one.authority.name), source)


def revocation(store: Store, slot: str, reason: str, now: datetime) -> Iterator[str]:
    """Yield what signs the lists of what is revoked, with the certificates called `slot` from now on; openssl-ca(1)."""
    register = store.read()
    by_serial = {each.serial: each for each in register.issued()}
    (authority,) = {each.authority for each in register.issued(slot)}
    for each in register.roots(authority):
        gone = [(by_serial[it.serial], it.at, it.reason) for it in register.revoked(each.serial)]
        gone += [(it, now, reason) for it in register.accepted(slot, now) if it.root == each.serial]
        yield from _list(store, register, each, gone)


def rotation(store: Store, fleet: Fleet, wanted: Sequence[Wanted], authority: Authority) -> Iterator[str]:
    """Yield the next step of a rotation: what begins it, what signs everything again, or what drops the old root."""
    register = store.read()
    roots = register.roots(authority.name)
    if len(roots) < 2:
        yield from root(store, authority)
        return
    by_slot = {one.slot: one for one in wanted}
    live = to_reissue(register, authority.name, wanted)
    for host, ones in by_host(by_slot[each.slot] for each in live).items():
        paths = [path for one in ones for path in (one.declared.roots_path, one.declared.certificate_path)]
        yield f"{_asked(fleet, host, ['cat', *paths])} >{host}.pem"
    behind = [by_slot[each.slot] for each in live if each.root != roots[-1].serial]
    for one in behind:
        yield from certificate(store, one, roots[-1], _same_key(store, one))
    if not behind:
        new = store.root_path(authority.name, roots[-1].serial)
        yield f"cp {name(new)} {name(store.roots_path(authority.name))}"


def name(path: Path) -> str:
    """Return a path as it is typed in the project's folder."""
    return shlex.quote(str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path))


def _same_key(store: Store, one: Wanted) -> str:
    path = store.certificate_path(one.authority.name, one.host, one.use)
    return f"openssl x509 -in {name(path)} -noout -pubkey"


def _asked(fleet: Fleet, host: str, command: list[str]) -> str:
    found = fleet.host(host)
    return shlex.join([*ssh(fleet.site_of(found), found), as_root(found, shlex.join(command))])


def _list(
    store: Store, register: Register, signer: Root, gone: Sequence[tuple[Issued, datetime, str]]
) -> Iterator[str]:
    """Yield what makes the next CRL of a root; `gone` is what, when and why (a name of `certificates.REASONS`)."""
    yield ": >index"
    for issued, when, why in gone:
        ends = f"{issued.signed.not_valid_after_utc:%y%m%d%H%M%SZ}"
        # RFC 5280, 5.3.1: to be unspecified is to have no reason.
        reason = "" if why == "unspecified" else f",{certificates.REASONS[why].value}"
        said = f"{when:%y%m%d%H%M%SZ}{reason}"
        words = shlex.join([ends, said, issued.serial.upper(), f"/CN={issued.host}"])
        yield f"printf 'R\\t%s\\t%s\\t%s\\tunknown\\t%s\\n' {words} >>index"
    last = register.crl(signer.serial)
    settings = [
        *("[ca]", "default_ca = ours", "[ours]", "database = index", "crlnumber = number"),
        *("default_md = sha256", "crl_extensions = more", "[more]", "authorityKeyIdentifier = keyid"),
    ]
    yield f"printf '%04X\\n' {1 if last is None else last.number + 1} >number"
    yield f"printf '%s\\n' {shlex.join(settings)} >ca.conf"
    yield (
        f"age --decrypt {name(store.key_path(signer.authority, signer.serial))} | openssl ca -gencrl -config ca.conf "
        f"-cert {name(store.root_path(signer.authority, signer.serial))} -keyfile /dev/stdin "
        f"-crldays {certificates.CRL_DAYS} >>crl.pem"
    )
