"""Whom a connection is made to is proved by its certificate, and nothing switches that off."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from shared.config import Mode
from shared.egress import Egress, NotReached

NOW = dt.datetime.now(dt.UTC)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate that vouches for itself, and its key, as files."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def identity(folder: Path, *, address: str = "127.0.0.1", until: dt.datetime = NOW + dt.timedelta(days=1)) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=2))
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = Identity(folder / "tls.crt", folder / "tls.key")
    files.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


@asynccontextmanager
async def serving(identity: Identity) -> AsyncIterator[tuple[str, list[str]]]:
    """A server with that identity, and the paths that reached it."""
    reached: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        reached.append(request.path)
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=identity.context()).start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}/secret", reached
    finally:
        await runner.cleanup()


async def test_a_server_whose_certificate_we_were_told_to_trust_is_reached(tmp_path: Path) -> None:
    one = identity(tmp_path)
    async with serving(one) as (url, reached), Egress(mode=Mode.DEVELOPMENT, ca_file=one.certificate) as egress:
        assert (await egress.request("GET", url)).body == b"hello"
    assert reached == ["/secret"]


@pytest.mark.parametrize("mode", list(Mode))
async def test_one_that_nobody_vouches_for_never_sees_the_request(tmp_path: Path, mode: Mode) -> None:
    async with serving(identity(tmp_path)) as (url, reached), Egress(mode=mode) as egress:
        with pytest.raises(NotReached):
            await egress.request("GET", url, headers={"X-Vault-Token": "hunter2"})
    assert reached == []


@pytest.mark.parametrize(
    "wrong", [{"address": "127.0.0.2"}, {"until": NOW - dt.timedelta(days=1)}], ids=["of another host", "expired"]
)
async def test_a_trusted_certificate_still_has_to_be_the_right_one(tmp_path: Path, wrong: dict[str, object]) -> None:
    one = identity(tmp_path, **wrong)  # type: ignore[arg-type]
    async with serving(one) as (url, reached), Egress(mode=Mode.DEVELOPMENT, ca_file=one.certificate) as egress:
        with pytest.raises(NotReached, match="no connection") as refused:
            await egress.request("GET", url)
    assert reached == []
    assert len(str(refused.value)) < 300


async def test_a_certificate_of_our_own_is_trusted_beside_the_systems_and_not_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One source has a certificate of the organisation, another one of a public authority."""
    known, ours = tmp_path / "system", tmp_path / "ours"
    known.mkdir()
    ours.mkdir()
    one, extra = identity(known), identity(ours)
    monkeypatch.setenv("SSL_CERT_FILE", str(one.certificate))
    async with serving(one) as (url, _), Egress(mode=Mode.DEVELOPMENT, ca_file=extra.certificate) as egress:
        assert (await egress.request("GET", url)).status == 200
