"""Two hospitals and a resolver on fakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.dev.platform import DevIssuer
from tests.fakes.estate import hospitals
from tests.fakes.resolving import Bench
from tests.fakes.resolving import bench as wired


@pytest.fixture(scope="session")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> DevIssuer:
    """Signs tokens; nobody asks it over HTTP here."""
    directory: Path = tmp_path_factory.mktemp("issuer")
    return DevIssuer(directory, url="https://idp.example")


@pytest.fixture
async def bench(issuer: DevIssuer) -> Bench:
    """Two hospitals; each one's value in the vault is its own name in capitals."""
    made = wired(hospitals(), issuer)
    for name in ("hospital-a", "hospital-b"):
        made.vault.put(f"{name}/db-dsn", name.upper())
    return made
