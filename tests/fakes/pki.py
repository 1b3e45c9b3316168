"""Certificates for tests: an authority, what it signs for a listener, and the one that signs instances."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from services.policy.instance_ca import InstanceCa, load_instance_ca

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    """Files of one authority, `<name>.pem` and `<name>.key`."""

    directory: Path
    name: str

    @property
    def certificate(self) -> Path:
        return self.directory / f"{self.name}.pem"

    @property
    def key(self) -> Path:
        return self.directory / f"{self.name}.key"

    def instance_ca(self, *, lifetime: timedelta = DAY) -> InstanceCa:
        """As policy loads it."""
        ca = load_instance_ca(self.key, self.certificate, lifetime=lifetime)
        assert ca is not None
        return ca

    def listener(self, name: str = "server") -> Authority:
        """The files of a listener on loopback."""
        ca, key = self.instance_ca(), ec.generate_private_key(ec.SECP256R1())
        loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = _builder(name, ca.certificate.subject, key).add_extension(loopback, critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False
        )
        return _saved(Authority(self.directory, name), builder.sign(ca.key, hashes.SHA256()), key)


def authority(directory: Path, name: str, *, valid: timedelta = DAY, is_ca: bool = True) -> Authority:
    """A new one."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _builder(name, subject, key, valid=valid)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    return _saved(Authority(directory, name), builder.sign(key, hashes.SHA256()), key)


def request_for(key: ec.EllipticCurvePrivateKey, *, name: str = "whatever") -> str:
    """A certificate request in PEM, which asks to be an authority by that name."""
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier("urn:keyfob:instance/x")]), False)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(Encoding.PEM).decode()


def _builder(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, valid: timedelta = DAY
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, now + valid) - DAY)
        .not_valid_after(now + valid)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _saved(place: Authority, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Authority:
    place.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    place.key.touch(mode=0o600)
    place.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return place
