"""The second listener is there where all of its files are named, and half of them are a mistake."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from services.resolver.settings import ResolverSettings
from shared.config import Misconfigured

FILES = ("https_certificate", "https_key", "https_client_ca_file")


def test_without_files_there_is_none() -> None:
    assert ResolverSettings().mutual_tls() is None


@pytest.mark.parametrize("named", [*combinations(FILES, 1), *combinations(FILES, 2)])
def test_some_of_the_files_are_a_mistake(named: tuple[str, ...]) -> None:
    settings = ResolverSettings.model_validate({name: Path("x.pem") for name in named})
    with pytest.raises(Misconfigured, match="go together"):
        settings.mutual_tls()


def test_with_all_of_them_it_listens_where_the_settings_say() -> None:
    files = {name: Path(f"{name}.pem") for name in FILES}
    said = {"https_host": "10.0.0.1", "https_port": 8443, "https_connections": 7}
    tls = ResolverSettings.model_validate(files | said).mutual_tls()
    assert tls is not None
    assert (tls.host, tls.port, tls.connections) == ("10.0.0.1", 8443, 7)
    assert (tls.certificate, tls.key, tls.client_ca) == tuple(files.values())


def test_it_is_reachable_from_elsewhere_only_on_purpose() -> None:
    tls = ResolverSettings.model_validate({name: Path("x.pem") for name in FILES}).mutual_tls()
    assert tls is not None
    assert tls.host == "127.0.0.1"
