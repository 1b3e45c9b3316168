"""In production mode no configured peer is spoken to in plain HTTP, except on this machine."""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp
import pytest

from services.policy.app import Settings as PolicyService
from services.policy.app import build
from services.policy.settings import PolicySettings
from services.resolver.app import Settings as ResolverService
from services.resolver.app import replica
from services.resolver.settings import ResolverSettings
from shared import serving
from shared.config import CommonSettings, Misconfigured, Mode
from shared.origins import checked_origins

SETTING = "KEYFOB_X_URLS"


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(
    "text",
    ["https://resolver.example", "https://10.0.0.1:8443/", "http://127.0.0.1:1", "http://[::1]", "http://localhost"],
)
def test_https_is_good_everywhere_and_http_on_this_machine(mode: Mode, text: str) -> None:
    assert checked_origins(f"{text}, {text},", mode=mode, setting=SETTING) == (text, text)


@pytest.mark.parametrize(
    "text", ["http://resolver.example", "http://10.0.0.1", "http://localhost.example", "http://0.0.0.0"]
)
def test_http_elsewhere_is_for_development(text: str) -> None:
    both = f"https://good.example,{text}"
    with pytest.raises(Misconfigured, match=f"{SETTING} must be https"):
        checked_origins(both, mode=Mode.PRODUCTION, setting=SETTING)
    assert len(checked_origins(both, mode=Mode.DEVELOPMENT, setting=SETTING)) == 2


@pytest.mark.parametrize("mode", list(Mode))
def test_where_a_client_certificate_is_shown_it_is_always_https(mode: Mode) -> None:
    with pytest.raises(Misconfigured, match="client certificate"):
        checked_origins("http://127.0.0.1", mode=mode, setting=SETTING, always_tls=True)


@pytest.mark.parametrize(
    "text",
    [
        "resolver.example",
        "ftp://x",
        "https://",
        "https://user:pw-canary@x",
        "https://x/path",
        "https://x?q",
        "https://x:y",
        "https://[",
    ],
)
@pytest.mark.parametrize("mode", list(Mode))
def test_what_is_no_origin_is_refused_without_being_quoted(mode: Mode, text: str) -> None:
    with pytest.raises(Misconfigured, match=SETTING) as refused:
        checked_origins(text, mode=mode, setting=SETTING)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("name", ["resolver_urls", "notifier_url", "https_urls"])
async def test_policy_does_not_start_if_it_would_send_gateways_to_plain_http(name: str, tmp_path: Path) -> None:
    policy = PolicySettings(**{name: "http://elsewhere.example"}, signing_key_file=tmp_path / "absent")
    settings = PolicyService(common=CommonSettings(mode=Mode.PRODUCTION), policy=policy)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(Misconfigured, match=f"KEYFOB_POLICY_{name.upper()} must be https"):
            build(settings, session)


async def test_a_resolver_does_not_start_under_a_plain_name() -> None:
    settings = ResolverService(
        common=CommonSettings(mode=Mode.PRODUCTION), resolver=ResolverSettings(audience="http://resolver.example")
    )
    with pytest.raises(Misconfigured, match="KEYFOB_RESOLVER_AUDIENCE must be https"):
        async with replica(settings):
            pass


LISTENS = re.compile(r"uvicorn\.(Server|Config|run)|AppRunner|TCPSite|start_server|HTTPServer|run_app")


def test_whoever_listens_does_it_by_the_one_function_that_refuses_plain_http() -> None:
    """The second listener speaks nothing but TLS, and the issuer is for development."""
    root = Path(serving.__file__).parents[1]
    sources = [*root.glob("services/**/*.py"), *root.glob("shared/**/*.py")]
    listening = {str(one.relative_to(root)) for one in sources if LISTENS.search(one.read_text())}
    assert listening == {"shared/serving.py", "shared/mutual_tls.py", "services/dev/platform/issuer.py"}
