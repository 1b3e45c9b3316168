"""What the authority of instances signs: a client certificate for one instance, and nothing that a request asks for."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.policy.instance_ca import load_instance_ca, requested_key
from shared.config import Misconfigured
from shared.crypto.framing import sha256, to_base64url
from shared.crypto.signing import SigningKey
from shared.delivery.certificates import PeerCertificate, as_pem, certified_key, key_text, read_peer, thumbprint_of
from shared.errors import BadRequest
from tests.fakes.pki import DAY, Authority, authority, request_for

NOW = datetime.now(UTC).replace(microsecond=0)
INSTANCE = "instance/0f8c"
KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ca"), "instance-ca")


def issued(ca: Authority, *, lifetime: timedelta = DAY / 2) -> x509.Certificate:
    return ca.instance_ca(lifetime=lifetime).issue(KEY.public_key(), instance_id=INSTANCE, now=NOW)


def test_a_certificate_names_its_instance_and_is_for_clients_only(ca: Authority) -> None:
    certificate = issued(ca)
    extensions = certificate.extensions
    uris = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert uris.get_values_for_type(x509.UniformResourceIdentifier) == [f"urn:keyfob:{INSTANCE}"]
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    certificate.verify_directly_issued_by(ca.instance_ca().certificate)


def test_it_is_read_as_whom_it_names_and_known_again_by_its_thumbprint(ca: Authority) -> None:
    der = issued(ca).public_bytes(Encoding.DER)
    kept = to_base64url(der)
    assert read_peer(der) == PeerCertificate(INSTANCE, thumbprint_of(kept)) == PeerCertificate(INSTANCE, sha256(der))
    assert certified_key(kept) == key_text(KEY.public_key())
    assert x509.load_pem_x509_certificate(as_pem(kept).encode()).public_bytes(Encoding.DER) == der


def test_no_two_are_the_same(ca: Authority) -> None:
    assert issued(ca).serial_number != issued(ca).serial_number


def test_it_ends_with_its_time_and_never_after_its_authority(ca: Authority) -> None:
    assert issued(ca).not_valid_after_utc == NOW + DAY / 2
    assert issued(ca, lifetime=99 * DAY).not_valid_after_utc == ca.instance_ca().certificate.not_valid_after_utc
    # Clocks differ a little.
    assert issued(ca).not_valid_before_utc < NOW


@pytest.mark.parametrize("names", [[], ["urn:keyfob:a", "urn:keyfob:b"], ["https://keyfob/instance/1"]])
def test_one_that_names_no_instance_or_several_is_nobodys(names: list[str]) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, INSTANCE)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + DAY)
    )
    if names:
        uris = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name) for name in names])
        builder = builder.add_extension(uris, critical=False)
    assert read_peer(builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)) is None


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"rubbish" * 100])
def test_what_is_no_certificate_is_nobodys(der: bytes) -> None:
    assert read_peer(der) is None


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-256", "P-384", "Ed25519", "RSA 2048"],
)
def test_strong_keys_are_taken(key: ec.EllipticCurvePrivateKey) -> None:
    assert key_text(requested_key(signed(key))) == key_text(key.public_key())


def signed(key: ec.EllipticCurvePrivateKey) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return (
        builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
        .public_bytes(Encoding.PEM)
        .decode()
    )


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),  # noqa: S505 - refused
        ec.generate_private_key(ec.SECP256K1()),
        dsa.generate_private_key(2048),
    ],
    ids=["RSA 1024", "secp256k1", "DSA"],
)
def test_weak_and_unusual_keys_are_refused(key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(BadRequest, match="not usable"):
        requested_key(signed(key))


def test_who_does_not_hold_the_key_gets_nothing() -> None:
    """A request whose signature is not by its own key proves nothing."""
    der = x509.load_pem_x509_csr(request_for(KEY).encode()).public_bytes(Encoding.DER)
    # The end of the signature: the request still reads well.
    changed = der[:-1] + bytes([der[-1] ^ 1])
    assert not x509.load_der_x509_csr(changed).is_signature_valid
    lines = base64.encodebytes(changed).decode()
    pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{lines}-----END CERTIFICATE REQUEST-----\n"
    with pytest.raises(BadRequest):
        requested_key(pem)


@pytest.mark.parametrize(
    "pem", ["", "rubbish", "-----BEGIN CERTIFICATE REQUEST-----\nAA\n-----END X-----", "ü", "\ud800"]
)
def test_what_is_no_request_is_refused_without_being_quoted(pem: str) -> None:
    with pytest.raises(BadRequest) as refused:
        requested_key(pem)
    assert "rubbish" not in refused.value.detail


class TestLoading:
    def test_without_files_there_is_none(self) -> None:
        assert load_instance_ca(None, None, lifetime=DAY) is None

    def test_one_file_alone_is_a_mistake(self, ca: Authority) -> None:
        for files in ((ca.key, None), (None, ca.certificate)):
            with pytest.raises(Misconfigured, match="go together"):
                load_instance_ca(*files, lifetime=DAY)

    @pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
    def test_a_key_that_others_may_read_is_refused(self, tmp_path: Path, mode: int) -> None:
        made = authority(tmp_path, "open")
        made.key.chmod(mode)
        with pytest.raises(Misconfigured, match="0600"):
            load_instance_ca(made.key, made.certificate, lifetime=DAY)

    def test_the_certificate_of_another_key_is_refused(self, ca: Authority, tmp_path: Path) -> None:
        with pytest.raises(Misconfigured, match="another key"):
            load_instance_ca(ca.key, authority(tmp_path, "other").certificate, lifetime=DAY)

    def test_a_certificate_that_is_no_authoritys_is_refused(self, tmp_path: Path) -> None:
        leaf = authority(tmp_path, "leaf", is_ca=False)
        with pytest.raises(Misconfigured, match="of a CA"):
            load_instance_ca(leaf.key, leaf.certificate, lifetime=DAY)

    def test_one_that_has_expired_is_refused(self, tmp_path: Path) -> None:
        old = authority(tmp_path, "old", valid=-DAY / 2)
        with pytest.raises(Misconfigured, match="expired"):
            load_instance_ca(old.key, old.certificate, lifetime=DAY)

    def test_files_that_are_something_else_are_named_and_not_quoted(self, ca: Authority, tmp_path: Path) -> None:
        other, absent = tmp_path / "other.key", tmp_path / "absent.pem"
        SigningKey.generate().save(other)
        rubbish = tmp_path / "rubbish.pem"
        rubbish.write_text("canary-rubbish")
        for key, certificate in ((other, ca.certificate), (ca.key, rubbish), (ca.key, absent), (absent, rubbish)):
            with pytest.raises(Misconfigured) as refused:
                load_instance_ca(key, certificate, lifetime=DAY)
            assert "canary" not in str(refused.value)
            assert refused.value.__cause__ is None

    def test_it_does_not_show_its_key(self, ca: Authority) -> None:
        assert "PrivateKey" not in repr(ca.instance_ca())
