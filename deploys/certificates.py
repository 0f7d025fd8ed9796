"""What a host is given of the PKI, as sets of files beside the key that is already there (DESIGN, "How data flows")."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from fleet.model.pki import Certificate, Use
from fleet.model.service import File, FileSet
from fleet.model.site import Fleet, Host, Os
from fleet.pki.wanted import slot

_PURPOSE = {Use.SERVER: "sslserver", Use.CLIENT: "sslclient"}


def is_published(wanted: Certificate, host: Host, fleet: Fleet) -> bool:
    """Return whether `host` can be given the certificate: until then its service does without."""
    return slot(wanted.authority.name, host.name, wanted.use) in fleet.published.certificates


def certificate_sets(certificates: Iterable[Certificate], host: Host, fleet: Fleet) -> Iterator[FileSet]:
    """Yield a set for each certificate of `host` that is published: it, its roots, and what they have revoked.

    Its check is that it belongs to the key that is on the host, and that these roots have signed it for its use.
    """
    group = "wheel" if host.os is Os.OPENBSD else "root"
    for wanted in certificates:
        if not is_published(wanted, host, fleet):
            continue
        authority = wanted.authority.name
        texts = {
            wanted.certificate_path: fleet.published.certificates[slot(authority, host.name, wanted.use)],
            wanted.roots_path: fleet.published.roots[authority],
        }
        if wanted.crl:
            texts[wanted.crl_path] = fleet.published.crls[authority]
        yield FileSet(
            name=wanted.name,
            files=tuple(File(path=path, text=text, group=group) for path, text in texts.items()),
            check=_check(wanted),
        )


def _check(wanted: Certificate) -> str:
    certificate, roots = (f"{{new}}{shlex.quote(path)}" for path in (wanted.certificate_path, wanted.roots_path))
    return (
        f'[ "$(openssl x509 -in {certificate} -noout -pubkey)" = '
        f'"$(openssl pkey -in {shlex.quote(wanted.key_path)} -pubout)" ] || '
        f"{{ echo 'this certificate is not of the key on the host: fleet pki renew' >&2; exit 1; }}; "
        f"openssl verify -CAfile {roots} -purpose {_PURPOSE[wanted.use]} {certificate}"
    )
