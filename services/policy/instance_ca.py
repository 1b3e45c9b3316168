r"""The authority that signs the client certificates of instances in the profile `https`.

Its certificate is what resolvers' listeners accept clients by. An operator makes both files, with any tool:

    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=Keyfob instances" \
        -addext keyUsage=critical,keyCertSign,cRLSign -keyout instance-ca.key -out instance-ca.pem
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.config import Misconfigured
from shared.crypto.key_files import KeyFileRefused, read_key_file
from shared.delivery.certificates import uri_of
from shared.errors import BadRequest

SMALLEST_RSA: Final = 2048
"""Bits; NIST SP 800-131A allows no fewer."""
LARGEST_RSA: Final = 4096
# A resolver whose clock is a little behind must not find a fresh certificate not valid yet.
CLOCKS_DIFFER: Final = timedelta(minutes=5)

_UNUSABLE: Final = (
    "The certificate request is not usable: PEM of a PKCS #10 request for an EC key on P-256 or P-384, an Ed25519 key, "
    f"or an RSA key of {SMALLEST_RSA} to {LARGEST_RSA} bits, signed with that key."
)


def requested_key(pem: str) -> CertificatePublicKeyTypes:
    """The public key of a PKCS #10 request whose sender holds the private one. `BadRequest` for anything else.

    Nothing else is read from it: names, usages and lifetimes that a request asks for are not its to say.
    """
    try:
        request = x509.load_pem_x509_csr(pem.encode("ascii"))
        key = request.public_key()
        # In this order: nothing is computed with a key of a size that we would not take.
        usable = _strong(key) and request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        usable = False
    if not usable:
        raise BadRequest(_UNUSABLE)
    return key


def _strong(key: object) -> bool:
    match key:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1() | ec.SECP384R1()) | ed25519.Ed25519PublicKey():
            return True
        case rsa.RSAPublicKey(key_size=bits):
            return SMALLEST_RSA <= bits <= LARGEST_RSA
        case _:
            return False


@dataclass(frozen=True, slots=True)
class InstanceCa:
    """Issues. `lifetime` is that of what it issues, and never beyond its own."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    lifetime: timedelta

    @property
    def pem(self) -> str:
        """Its own certificate."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def issue(self, key: CertificatePublicKeyTypes, *, instance_id: str, now: datetime) -> x509.Certificate:
        """A client certificate for the holder of `key`, as the instance of that id."""
        ours = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, instance_id)]))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCKS_DIFFER)
            .not_valid_after(min(now + self.lifetime, self.certificate.not_valid_after_utc))
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri_of(instance_id))]), False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ours), critical=False)
            .sign(self.key, hashes.SHA256())
        )


def load_instance_ca(key_file: Path | None, certificate_file: Path | None, *, lifetime: timedelta) -> InstanceCa | None:
    """The authority in the two files; None where neither is set. `Misconfigured` for what can't be one."""
    if key_file is None and certificate_file is None:
        return None
    if key_file is None or certificate_file is None:
        raise Misconfigured("KEYFOB_POLICY_INSTANCE_CA_KEY_FILE and _INSTANCE_CA_FILE go together: set both.")
    try:
        key = load_pem_private_key(read_key_file(key_file), password=None)
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        return _checked(key, certificate, lifetime)
    except KeyFileRefused as error:
        raise Misconfigured(error.detail) from None
    except OSError as error:
        raise Misconfigured(f"{certificate_file} cannot be read: {error.strerror}.") from None
    # Not chained: a parser's message may quote what it could not read.
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.DuplicateExtension):
        raise Misconfigured(f"{key_file} and {certificate_file} are not the EC key and certificate of a CA.") from None


def _checked(key: object, certificate: x509.Certificate, lifetime: timedelta) -> InstanceCa:
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError
    ca = InstanceCa(certificate, key, lifetime)
    extensions = certificate.extensions
    # What `issue` needs of it: without, every enrolment would fail, where now the start does.
    extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    if not extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise ValueError
    if ca.certificate.public_key() != ca.key.public_key():
        raise Misconfigured("KEYFOB_POLICY_INSTANCE_CA_FILE is the certificate of another key.")
    if ca.certificate.not_valid_after_utc <= datetime.now(UTC):
        raise Misconfigured("KEYFOB_POLICY_INSTANCE_CA_FILE is a certificate that has expired.")
    return ca
