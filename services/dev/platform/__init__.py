"""The embedded platform: real PostgreSQL, OpenBao, a broker, an issuer and tool environments, without root or Docker.

For development and tests. One place, one interface (start, stop, address); settings of the services point at
external ones in production. Names are imported on first use, so that the issuer, a process of its own within this
package, starts without loading clients that it doesn't need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.dev.platform.apache import ApacheBroker
    from services.dev.platform.broker import Broker, EmbeddedBroker, ExternalBroker, broker_from_env
    from services.dev.platform.failures import PlatformFailure, ProcessFailed, Unavailable
    from services.dev.platform.issuing import DevIssuer
    from services.dev.platform.openbao import METADATA_ONLY, READ_VALUES, OpenBao
    from services.dev.platform.postgres import Postgres
    from services.dev.platform.processes import Process, Supervisor, plain_environment
    from services.dev.platform.stack import Platform
    from services.dev.platform.tools import tool_environment

_HOME = {
    "ApacheBroker": "apache",
    "Broker": "broker",
    "EmbeddedBroker": "broker",
    "ExternalBroker": "broker",
    "broker_from_env": "broker",
    "PlatformFailure": "failures",
    "ProcessFailed": "failures",
    "Unavailable": "failures",
    "DevIssuer": "issuing",
    "METADATA_ONLY": "openbao",
    "READ_VALUES": "openbao",
    "OpenBao": "openbao",
    "Postgres": "postgres",
    "Process": "processes",
    "Supervisor": "processes",
    "plain_environment": "processes",
    "Platform": "stack",
    "tool_environment": "tools",
}

__all__ = [
    "METADATA_ONLY",
    "READ_VALUES",
    "ApacheBroker",
    "Broker",
    "DevIssuer",
    "EmbeddedBroker",
    "ExternalBroker",
    "OpenBao",
    "Platform",
    "PlatformFailure",
    "Postgres",
    "Process",
    "ProcessFailed",
    "Supervisor",
    "Unavailable",
    "broker_from_env",
    "plain_environment",
    "tool_environment",
]


def __getattr__(name: str) -> object:
    """Import an exported name from the module that it lives in (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
