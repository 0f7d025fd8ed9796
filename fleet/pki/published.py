"""What hosts are given of the PKI, out of the register. Pure."""

from __future__ import annotations

from fleet.model.pki import Published
from fleet.pki.register import Register


def published(register: Register) -> Published:
    """Return the trusted roots, their lists of what is revoked, and the current certificates.

    Of a certificate that was revoked nothing is given out, and its slot counts as revoked until it has a new one.
    """
    current = {slot: issued for slot in register.slots() if (issued := register.current(slot)) is not None}
    revoked = {slot for slot, issued in current.items() if register.is_revoked(issued)}
    authorities = dict.fromkeys(root.authority for root in register.all_roots())
    lists = {name: [register.crl(root.serial) for root in register.roots(name)] for name in authorities}
    return Published(
        certificates={slot: issued.certificate for slot, issued in current.items() if slot not in revoked},
        roots={name: "".join(root.certificate for root in register.roots(name)) for name in authorities},
        crls={name: "".join(each.crl for each in found if each is not None) for name, found in lists.items()},
        revoked=frozenset(revoked),
    )
