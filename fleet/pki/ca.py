"""What is done with the roots' keys: begin, sign, renew, revoke, rotate.

Each verb writes a line of the register for each thing that it does, before anybody sees it; one that dies is taken up
where it was by running it again. A key is in memory only, from the first time that something has to be signed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from pydantic import SecretStr

from fleet.model.pki import Authority
from fleet.pki import certificates, keys
from fleet.pki.due import Kind, State, survey
from fleet.pki.register import Begun, Crl, Dropped, Issued, Record, Revoked, Root, Signs
from fleet.pki.rotation import Action, Held, Step, next_step, to_reissue
from fleet.pki.store import Ledger
from fleet.pki.wanted import PkiError, Wanted

Requests = Callable[[Sequence[Wanted]], Mapping[str, str]]
"""Brings certificate requests in PEM, by `Wanted.slot`; one that cannot be had now is left out."""


class NewKeyError(PkiError):
    """A key that is new for a name whose certificate is still valid: only the owner can know whether that is right."""


@dataclass(frozen=True)
class Renewed:
    """What a renewal did: new certificates and CRLs, those that lack a request, and why others were refused."""

    done: tuple[Record, ...]
    lacking: tuple[Wanted, ...]
    refused: tuple[str, ...]


@dataclass
class Ca:
    """The authorities of a fleet, at work.

    Arguments: `wanted`, every certificate that the inventory declares; `now`, with its time zone; `passphrase`, asked
    once, when the first key is needed: it is one for all roots.
    """

    ledger: Ledger
    wanted: tuple[Wanted, ...]
    now: datetime
    passphrase: Callable[[], SecretStr]
    _keys: dict[str, EllipticCurvePrivateKey] = field(default_factory=dict, repr=False)
    _typed: SecretStr | None = field(default=None, repr=False)

    def init(self) -> tuple[Record, ...]:
        """Make the root of each declared authority that has none, and its first CRL; return what was made."""
        before = len(self.ledger.register.records)
        for authority in self._authorities().values():
            if not self.ledger.register.roots(authority.name):
                self._new_root(authority)
            for root in self.ledger.register.roots(authority.name):
                if self.ledger.register.crl(root.serial) is None:
                    self._new_crl(root)
        return self._since(before)

    def sign(self, wanted: Wanted, request: str, *, rekey: bool = False) -> Issued:
        """Sign the key in `request` (PEM) as `wanted`, and return the certificate.

        Arguments: `rekey`, the owner has said that the host's new key is its own. Raises NewKeyError where that word
        is needed, and PkiError for a request that `key_of_request` refuses, a key that another certificate has, one
        whose certificate was revoked, and an authority without a root.
        """
        public = certificates.key_of_request(wanted, request)
        register = self.ledger.register
        for issued in register.issued():
            if certificates.same_key(certificates.public_key(issued.signed), public):
                if issued.slot != wanted.slot:
                    raise PkiError(f"{wanted.slot}: the request has the key of {issued.slot}; refused")
                if register.is_revoked(issued):
                    raise PkiError(
                        f"{wanted.slot}: the request has a key that was revoked: the host has to make another"
                    )
        accepted = register.accepted(wanted.slot, self.now)
        known = any(certificates.same_key(certificates.public_key(each.signed), public) for each in accepted)
        if accepted and not known and not rekey:
            raise NewKeyError(f"{wanted.slot}: has a valid certificate, and the request has another key")
        return self._issue(wanted, public)

    def renew(self, requests: Requests, *, everything: bool = False) -> Renewed:
        """Renew what is due, with one passphrase: the same keys again, and CRLs; a second run does nothing.

        What was never issued, or was revoked, needs a request, which `requests` is asked for. Arguments:
        `everything`, also what is not due yet.
        """
        before = len(self.ledger.register.records)
        refused: list[str] = []
        need: list[Wanted] = []
        items = survey(self.ledger.register, self.wanted, self.now)
        live = {root.serial: root for item in items for root in self.ledger.register.roots(item.authority)}
        for item in items:
            if item.state is State.FINE and not everything:
                continue
            current = None if item.wanted is None else self.ledger.register.current(item.wanted.slot)
            try:
                if item.kind is Kind.CRL:
                    self._new_crl(live[item.serial])
                elif item.wanted is not None and (current is None or self.ledger.register.is_revoked(current)):
                    need.append(item.wanted)
                elif item.wanted is not None and current is not None:
                    self._issue(item.wanted, certificates.public_key(current.signed))
            except PkiError as error:
                refused.append(str(error))
        found = requests(need) if need else {}
        for wanted in need:
            if wanted.slot not in found:
                continue
            try:
                self.sign(wanted, found[wanted.slot])
            except PkiError as error:
                refused.append(str(error))
        lacking = tuple(wanted for wanted in need if wanted.slot not in found)
        return Renewed(self._since(before), lacking, tuple(refused))

    def revoke(self, name: str, reason: str) -> tuple[Record, ...]:
        """Revoke every certificate called `name` (`Wanted.slot`) that is still accepted, and sign new CRLs.

        Arguments: `reason`, a name of `REASONS`. Raises PkiError if there is none and the CRLs are complete.
        """
        before = len(self.ledger.register.records)
        for issued in self.ledger.register.accepted(name, self.now):
            self._append(
                Revoked(at=self.now, authority=issued.authority, root=issued.root, serial=issued.serial, reason=reason)
            )
        authorities = {issued.authority for issued in self.ledger.register.issued(name)}
        for authority in sorted(authorities):
            for root in self.ledger.register.roots(authority):
                if self.ledger.register.crl_is_behind(root.serial):
                    self._new_crl(root)
        if not self._since(before):
            raise PkiError(f"{name}: there is no valid certificate of that name to revoke")
        return self._since(before)

    def rotate(self, authority: str, held: Held, *, begin: bool = False) -> tuple[tuple[Record, ...], Step]:
        """Do the next step of the rotation of `authority`'s root, if it is safe; return what was done and what is next.

        Arguments: `held`, what the hosts have, as far as it is known; `begin`, start a rotation where none is under
        way. Raises PkiError for an authority that no service declares or that has no root.
        """
        declared = self._authorities().get(authority)
        if declared is None:
            raise PkiError(f"{authority}: no service declares it: there are {', '.join(self._authorities()) or 'none'}")
        before = len(self.ledger.register.records)
        step = next_step(self.ledger.register, authority, self.wanted, held)
        if step.action is Action.BEGIN and begin:
            self._new_root(declared)
        new = self.ledger.register.roots(authority)[-1]
        if self.ledger.register.crl_is_behind(new.serial):
            self._new_crl(new)
        if step.action is Action.REISSUE:
            self._reissue(authority)
        if step.action is Action.DROP:
            old = self.ledger.register.roots(authority)[0]
            self._append(Dropped(at=self.now, authority=authority, root=old.serial))
        return self._since(before), next_step(self.ledger.register, authority, self.wanted, held)

    def _reissue(self, authority: str) -> None:
        new = self.ledger.register.roots(authority)[-1]
        if self.ledger.register.signer(authority) != new:
            self._key(new)
            self._append(Signs(at=self.now, authority=authority, root=new.serial))
        by_slot = {wanted.slot: wanted for wanted in self.wanted}
        for issued in to_reissue(self.ledger.register, authority, self.wanted):
            if issued.root != new.serial:
                self._issue(by_slot[issued.slot], certificates.public_key(issued.signed))

    def _issue(self, wanted: Wanted, public: EllipticCurvePublicKey) -> Issued:
        root = self.ledger.register.signer(wanted.authority.name)
        if root is None:
            raise PkiError(f"{wanted.slot}: {wanted.authority.name} has no root: fleet pki init")
        serial = certificates.new_serial(self.ledger.register.serials())
        made = certificates.make_certificate(wanted, public, root.signed, self._key(root), serial, self.now)
        issued = Issued(
            at=self.now,
            authority=wanted.authority.name,
            root=root.serial,
            host=wanted.host,
            use=wanted.use,
            service=wanted.service,
            serial=certificates.hex_of(serial),
            certificate=certificates.pem_of(made),
        )
        self._append(issued)
        return issued

    def _new_root(self, authority: Authority) -> None:
        """Make a root: first the word that it begins, then its sealed key, then its certificate."""
        register = self.ledger.register
        others = [root for root in register.all_roots() if root in register.roots(root.authority)]
        if others:
            # One passphrase for all roots: it has to open one that is there before it seals another.
            self._key(others[-1])
        serial = certificates.new_serial(register.serials())
        name = certificates.hex_of(serial)
        key = keys.new()
        sealed = keys.seal(key, self._passphrase())
        self._append(Begun(at=self.now, authority=authority.name, serial=name))
        self.ledger.put_key(authority.name, name, sealed)
        made = certificates.make_root(authority, key, serial, self.now)
        self._keys[name] = key
        self._append(Root(at=self.now, authority=authority.name, serial=name, certificate=certificates.pem_of(made)))

    def _new_crl(self, root: Root) -> None:
        register = self.ledger.register
        last = register.crl(root.serial)
        number = 1 if last is None else last.number + 1
        revoked = {int(each.serial, 16): (each.at, each.reason) for each in register.revoked(root.serial)}
        made = certificates.make_crl(root.signed, self._key(root), number, revoked, self.now)
        self._append(
            Crl(
                at=self.now,
                authority=root.authority,
                root=root.serial,
                number=number,
                crl=certificates.pem_of(made),
            )
        )

    def _authorities(self) -> dict[str, Authority]:
        return {wanted.authority.name: wanted.authority for wanted in self.wanted}

    def _key(self, root: Root) -> EllipticCurvePrivateKey:
        if root.serial not in self._keys:
            name = str(self.ledger.store.key_path(root.authority, root.serial))
            key = keys.unseal(self.ledger.store.key(root), self._passphrase(), name)
            if not certificates.same_key(key.public_key(), certificates.public_key(root.signed)):
                raise PkiError(f"{name}: is the key of another root")
            self._keys[root.serial] = key
        return self._keys[root.serial]

    def _passphrase(self) -> SecretStr:
        if self._typed is None:
            self._typed = self.passphrase()
        return self._typed

    def _append(self, record: Record) -> None:
        self.ledger.append(record)

    def _since(self, before: int) -> tuple[Record, ...]:
        return self.ledger.register.records[before:]


def no_requests(wanted: Iterable[Wanted]) -> Mapping[str, str]:
    """Bring no request: for a renewal of what is there."""
    del wanted
    return {}
