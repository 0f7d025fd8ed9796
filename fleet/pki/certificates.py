"""Roots, certificates, CRLs and requests, as RFC 5280 and RFC 2986 have them. Pure but for the random serials.

Whatever is signed comes from the inventory; of a request only the public key is used.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from ipaddress import ip_network

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleet.model.pki import Authority, Use
from fleet.pki.wanted import PkiError, Wanted

EARLIER = timedelta(hours=1)
"""How long before it is signed a certificate is valid from: for hosts whose clock is a little slow."""

CRL_DAYS = 730
"""How long a CRL is good for: a day on which services that read it refuse everybody is one more to forget."""

NOWHERE = "invalid"
"""A domain that nobody has, RFC 2606, 2: the only one whose mail addresses and URIs a root may sign.

An excluded subtree that is empty would say the same, but OpenSSL takes an empty one for URIs to match nothing.
"""

REASONS: Mapping[str, x509.ReasonFlags] = {
    "unspecified": x509.ReasonFlags.unspecified,
    "key-compromise": x509.ReasonFlags.key_compromise,
    "superseded": x509.ReasonFlags.superseded,
    "cessation-of-operation": x509.ReasonFlags.cessation_of_operation,
}
"""Why a certificate is revoked, RFC 5280, 5.3.1."""

_EXTENDED = {Use.SERVER: ExtendedKeyUsageOID.SERVER_AUTH, Use.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH}


def new_serial(taken: Iterable[int] = ()) -> int:
    """Return 128 random bits as a positive number that is not in `taken`; RFC 5280, 4.1.2.2."""
    known = {0, *taken}
    while (serial := secrets.randbits(128)) in known:
        pass
    return serial


def make_root(authority: Authority, key: EllipticCurvePrivateKey, serial: int, now: datetime) -> x509.Certificate:
    """Return the self-signed certificate of a root of `authority`, valid for its `root_days` from `now`.

    It signs no other authority, and only names below the domains of `authority`. Each domain is written with a dot
    before it: LibreSSL compares the ends of the two texts, so that ``chown.me`` would permit ``evilchown.me``
    (x509_constraints_sandns() in lib/libcrypto/x509/x509_constraints.c); OpenSSL, GnuTLS and NSS read it alike.
    """
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, authority.domains[0]),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{authority.name} {now:%Y-%m-%d} {hex_of(serial)[:8]}"),
        ]
    )
    permitted: list[x509.GeneralName] = [x509.DNSName(f".{domain}") for domain in authority.domains]
    permitted += [x509.RFC822Name(NOWHERE), x509.UniformResourceIdentifier(NOWHERE)]
    excluded = [x509.IPAddress(ip_network(every)) for every in ("0.0.0.0/0", "::/0")]
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    return (
        _begin(subject, subject, public, serial, now)
        .not_valid_after(now - EARLIER + timedelta(days=authority.root_days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs=True), critical=True)
        .add_extension(x509.NameConstraints(permitted, excluded), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(_issued_by(identifier), critical=False)
        .sign(key, SHA256())
    )


def make_certificate(
    wanted: Wanted,
    public: EllipticCurvePublicKey,
    root: x509.Certificate,
    key: EllipticCurvePrivateKey,
    serial: int,
    now: datetime,
) -> x509.Certificate:
    """Return the certificate `wanted` for `public`, signed by `root`, whose private key is `key`.

    It is valid for the authority's `leaf_days` from `now`, and no longer than its root. Raises PkiError if the root
    is not valid now, or if it permits not all names: a domain that the inventory has since then needs a new root.
    """
    _require_valid(root, now)
    permitted = domains_of(root)
    for name in wanted.names:
        if not any(name.endswith(f".{domain}") for domain in permitted):
            raise PkiError(f"{wanted.slot}: its root does not permit {name}: fleet pki rotate-ca")
    end = min(now - EARLIER + timedelta(days=wanted.authority.leaf_days), root.not_valid_after_utc)
    names = [x509.DNSName(name) for name in wanted.names]
    return (
        _begin(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted.host)]), root.subject, public, serial, now)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_EXTENDED[wanted.use]]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(_issued_by(_identifier(root)), critical=False)
        .sign(key, SHA256())
    )


def make_crl(
    root: x509.Certificate,
    key: EllipticCurvePrivateKey,
    number: int,
    revoked: Mapping[int, tuple[datetime, str]],
    now: datetime,
) -> x509.CertificateRevocationList:
    """Return the CRL number `number` of `root`.

    Arguments: `revoked`, when and why (a name of `REASONS`) by serial. Raises PkiError if the root is not valid now.
    """
    _require_valid(root, now)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(root.subject)
        .last_update(now - EARLIER)
        .next_update(min(now - EARLIER + timedelta(days=CRL_DAYS), root.not_valid_after_utc))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_issued_by(_identifier(root)), critical=False)
    )
    for serial, (when, reason) in sorted(revoked.items()):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when)
        if REASONS[reason] is not x509.ReasonFlags.unspecified:
            # RFC 5280, 5.3.1: this reason is given by giving none.
            entry = entry.add_extension(x509.CRLReason(REASONS[reason]), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(key, SHA256())


def key_of_request(wanted: Wanted, pem: str) -> EllipticCurvePublicKey:
    """Return the public key in a request, and nothing else of it.

    Raises PkiError if it is no request, not signed with its own key, for a key that is not of P-256, or if it asks
    for a name that is not one of `wanted`: the host that sent it takes itself for another.
    """
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        public = request.public_key()
        own = request.is_signature_valid
    except UnsupportedAlgorithm:
        raise PkiError(f"{wanted.slot}: the request is for a key that is not of P-256") from None
    except (ValueError, TypeError, x509.InvalidVersion):
        raise PkiError(f"{wanted.slot}: is no certificate request in PEM") from None
    if not isinstance(public, EllipticCurvePublicKey) or not isinstance(public.curve, SECP256R1):
        raise PkiError(f"{wanted.slot}: the request is for a key that is not of P-256")
    if not own:
        raise PkiError(f"{wanted.slot}: the request is not signed with its own key")
    foreign = sorted(set(_asked(request, wanted.slot)) - {wanted.host, *wanted.names})
    if foreign:
        raise PkiError(f"{wanted.slot}: the request asks to be {', '.join(foreign)}; refused")
    return public


def read_certificate(pem: str) -> x509.Certificate:
    """Return the certificate in `pem`; ValueError if there is none."""
    return x509.load_pem_x509_certificate(pem.encode())


def public_key(certificate: x509.Certificate) -> EllipticCurvePublicKey:
    """Return the public key of a certificate of ours; ValueError if it is not of P-256."""
    public = certificate.public_key()
    if not isinstance(public, EllipticCurvePublicKey) or not isinstance(public.curve, SECP256R1):
        raise ValueError("is for a key that is not of P-256")
    return public


def same_key(one: EllipticCurvePublicKey, other: EllipticCurvePublicKey) -> bool:
    """Return whether two public keys are the same."""
    return _encoded(one) == _encoded(other)


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the domain names among the subject alternative names of a certificate, in its order."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(names.get_values_for_type(x509.DNSName))


def domains_of(root: x509.Certificate) -> tuple[str, ...]:
    """Return the domains below which `root` may sign names."""
    subtrees = root.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or []
    return tuple(each.value.removeprefix(".") for each in subtrees if isinstance(each, x509.DNSName))


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate in small hexadecimal digits."""
    return certificate.fingerprint(SHA256()).hex()


def hex_of(serial: int) -> str:
    """Return a serial number in 32 small hexadecimal digits."""
    return f"{serial:032x}"


def pem_of(signed: x509.Certificate | x509.CertificateRevocationList) -> str:
    """Return a certificate or a CRL in PEM."""
    return signed.public_bytes(Encoding.PEM).decode()


def _asked(request: x509.CertificateSigningRequest, where: str) -> list[str]:
    names = [str(each.value) for each in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    try:
        alternative = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return names
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise PkiError(f"{where}: the request has extensions that cannot be read") from None
    return names + [str(each.value) for each in alternative]


def _require_valid(root: x509.Certificate, now: datetime) -> None:
    if not root.not_valid_before_utc <= now < root.not_valid_after_utc:
        raise PkiError(f"{root.subject.rfc4514_string()}: this root is not valid today: fleet pki rotate-ca")


def _begin(
    subject: x509.Name, issuer: x509.Name, public: EllipticCurvePublicKey, serial: int, now: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    return builder.serial_number(serial).not_valid_before(now - EARLIER)


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    """Return what a key may do: a root's signs certificates and CRLs, any other only its part of a handshake."""
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _identifier(root: x509.Certificate) -> x509.SubjectKeyIdentifier:
    return root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value


def _issued_by(identifier: x509.SubjectKeyIdentifier) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _encoded(public: EllipticCurvePublicKey) -> bytes:
    return public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
