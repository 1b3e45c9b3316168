"""Where things fetched once are kept, and the environment that package tools need to fetch them."""

from __future__ import annotations

import os
from pathlib import Path

from services.dev.platform.processes import plain_environment

_TREE = Path(__file__).resolve().parents[3]
# What pip and Maven read to find their registries; other programs of the platform never see it.
_OF_FETCHERS = ("PIP_", "MAVEN_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "JAVA_HOME", "REQUESTS_CA_BUNDLE", "XDG_")


def cache_directory(kind: str) -> Path:
    """`.cache/<kind>` of the source tree, which git ignores; of the user where there is no tree."""
    tree = _TREE / ".cache"
    base = tree if (_TREE / "pyproject.toml").exists() else Path.home() / ".cache" / "keyfob"
    return base / kind


def fetcher_environment() -> dict[str, str]:
    """The environment for pip and Maven: the plain one and the user's own settings for these tools."""
    theirs = {name: value for name, value in os.environ.items() if name.upper().startswith(_OF_FETCHERS)}
    return plain_environment(**theirs)
