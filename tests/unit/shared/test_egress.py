"""Where requests to configured places may go."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import aiohttp
import pytest

from shared.config import Misconfigured, Mode
from shared.egress import AddressRefused, Egress, Guard, Origin, guarded_session, own_addresses, refusal
from shared.errors import BadRequest

NEVER = [
    "169.254.169.254",
    "fe80::1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "168.63.129.16",
    "fd00:ec2::254",
    "224.0.0.1",
    "ff02::1",
    "0.0.0.0",  # noqa: S104 - an address to refuse
    "::",
    "255.255.255.255",
    "240.0.0.1",
]
LOOPBACK = ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"]
FINE = ["10.1.2.3", "192.168.1.1", "172.16.0.9", "fd12:3456::1", "93.184.216.34", "2606:2800:220:1::1"]


def _refusal(text: str, mode: Mode) -> str | None:
    return refusal(ipaddress.ip_address(text), mode=mode)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("text", NEVER)
def test_metadata_link_local_and_group_addresses_are_never_reached(text: str, mode: Mode) -> None:
    assert _refusal(text, mode)


@pytest.mark.parametrize("text", LOOPBACK)
def test_loopback_is_for_development_only(text: str) -> None:
    assert _refusal(text, Mode.PRODUCTION)
    assert _refusal(text, Mode.DEVELOPMENT) is None


@pytest.mark.parametrize("text", FINE)
def test_private_networks_and_the_internet_are_allowed(text: str) -> None:
    assert _refusal(text, Mode.PRODUCTION) is None


def test_the_addresses_of_this_host_are_refused_in_production() -> None:
    own = frozenset({ipaddress.ip_address("10.1.2.3")})
    assert refusal(ipaddress.ip_address("10.1.2.3"), mode=Mode.PRODUCTION, own=own)
    assert refusal(ipaddress.ip_address("10.1.2.4"), mode=Mode.PRODUCTION, own=own) is None
    assert ipaddress.ip_address("127.0.0.1") in own_addresses()


def test_the_guard_looks_at_the_very_address_of_the_connection() -> None:
    guard = Guard(Mode.PRODUCTION)
    with pytest.raises(AddressRefused, match="metadata"):
        guard.socket_for((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80)))
    with pytest.raises(AddressRefused, match="link-local"):
        guard.socket_for((socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1%eth0", 80, 0, 2)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "vault",
        "ftp://vault:1",
        "https://",
        "https://user:pass@vault:8200",
        "https://vault:8200/v1",
        "https://vault:8200?x=1",
        "https://vault:99999",
        "https://[::1",
        "file:///etc/passwd",
        "https://a b",
        "https://vaült",
        "https://\ud800",
    ],
)
def test_what_is_not_an_origin_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        Origin.parse(text, mode=Mode.DEVELOPMENT)


def test_an_origin_has_one_spelling() -> None:
    spelled = {str(Origin.parse(text, mode=Mode.PRODUCTION)) for text in ("https://Vault", "https://vault:443/")}
    assert spelled == {"https://vault:443"}
    assert str(Origin.parse("http://[::1]:8200", mode=Mode.DEVELOPMENT)) == "http://[::1]:8200"


def test_plain_http_is_refused_outside_development() -> None:
    with pytest.raises(BadRequest):
        Origin.parse("http://vault:8200", mode=Mode.PRODUCTION)


def test_a_port_that_nobody_can_listen_on_is_not_taken_for_the_usual_one() -> None:
    with pytest.raises(BadRequest):
        Origin.parse("https://vault:0", mode=Mode.PRODUCTION)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
async def test_a_file_without_certificates_ends_the_start_by_its_name(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Misconfigured, match=str(file)):
        guarded_session(mode=Mode.PRODUCTION, ca_file=file)


async def test_a_session_is_used_inside_its_block() -> None:
    with pytest.raises(RuntimeError, match="enter the Egress first"):
        await Egress(mode=Mode.PRODUCTION).request("GET", "https://vault")


async def test_what_goes_out_carries_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://evil.example:1")
    async with guarded_session(mode=Mode.PRODUCTION) as session:
        assert not session.trust_env
        assert isinstance(session.cookie_jar, aiohttp.DummyCookieJar)
        assert not session.auto_decompress
        assert session.headers["Accept-Encoding"] == "identity"
