"""X.509 certificates of instances in the profile `https`: whom one names, and by what policy knows it again.

    subject             CN = <instance id>, for people who look at it
    subjectAltName      URI "urn:keyfob:<instance id>", which is what counts
    extendedKeyUsage    clientAuth
    thumbprint          SHA-256 of the DER (RFC 8705 §3.1)

The authority that signs them only lets somebody through the handshake. Who it is decides policy's signed record,
which holds the whole certificate: another one that names the same instance, from the same authority, is nobody's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.crypto.framing import from_base64url, sha256, to_base64url

URN: Final = "urn:keyfob:"


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The certificate that a peer proved, in a TLS handshake, to hold the key of."""

    instance_id: str
    """Whom it names; by itself no proof that policy knows it."""
    thumbprint: bytes


def key_text(key: CertificatePublicKeyTypes) -> str:
    """A public key as one text: base64url of its SubjectPublicKeyInfo (RFC 5280 §4.1)."""
    return to_base64url(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def certified_key(certificate: str) -> str:
    """The key that a record's `certificate` is for; `ValueError` for one that is none."""
    return key_text(x509.load_der_x509_certificate(from_base64url(certificate)).public_key())


def as_pem(certificate: str) -> str:
    """A record's `certificate` as tools read it."""
    return x509.load_der_x509_certificate(from_base64url(certificate)).public_bytes(Encoding.PEM).decode()


def thumbprint_of(certificate: str) -> bytes:
    """SHA-256 of a record's `certificate`, 32 bytes."""
    return sha256(from_base64url(certificate))


def uri_of(instance_id: str) -> str:
    """The name that stands in an instance's certificate."""
    return URN + instance_id


def read_peer(der: bytes) -> PeerCertificate | None:
    """What a verified peer's certificate says; None for one that names no instance, or more than one."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, UnsupportedAlgorithm):
        return None
    match names.get_values_for_type(x509.UniformResourceIdentifier):
        case [uri] if uri.startswith(URN):
            return PeerCertificate(uri.removeprefix(URN), sha256(der))
        case _:
            return None
