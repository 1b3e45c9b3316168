"""The settings of each process of a stack: the one place where a setting's name meets its value.

No value and no token is among them: secrets are files, and the settings name the files.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from services.dev.platform.caches import cache_directory
from services.dev.platform.ports import LOOPBACK, free_port
from services.dev.platform.processes import plain_environment
from services.dev.stack.layout import Layout

SERVICES = ("sync", "policy", "resolver-1", "resolver-2", "notifier", "audit")
SCHEMAS = ("sync", "policy", "resolver", "notifier", "audit")
"""Services with tables of their own: a schema and a role each."""
RESOLVERS = ("resolver-1", "resolver-2")
DATABASE = "keyfob"
_PROGRAMS = {Path(__file__).resolve().parents[3], Path(sys.prefix), Path(sys.base_prefix), cache_directory("tools")}
"""What MCP servers on this machine consist of, wherever it lies."""


@dataclass(slots=True)
class Environments:
    """Makes the environment of each process from what the stack knows."""

    layout: Layout
    issuer: str
    kafka: str = ""
    postgres: str = ""
    """host:port"""
    overrides: dict[str, str] = field(default_factory=dict)
    """Settings of the person who starts the stack, for every process: a shorter fence in tests, say."""
    deployments: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)
    """Process → what its deployment gives it besides: variables that servers may be given, with their values."""
    ports: dict[str, int] = field(default_factory=dict)

    def port(self, name: str) -> int:
        """The loopback port of a process; the same for as long as the stack lives."""
        return self.ports.setdefault(name, free_port())

    def url(self, name: str) -> str:
        """Where a process answers."""
        return f"http://{LOOPBACK}:{self.port(name)}"

    def of(self, name: str) -> dict[str, str]:
        """The whole environment of the process `name`."""
        service = name.partition("-")[0]
        own = {f"KEYFOB_{service.upper()}_{setting}": value for setting, value in self._own(service, name).items()}
        own[f"KEYFOB_{service.upper()}_HOST"] = LOOPBACK
        own[f"KEYFOB_{service.upper()}_PORT"] = str(self.port(name))
        # The same after a restart: a killed consumer then goes on at once, and waits for no session to run out.
        own["KEYFOB_KAFKA_MEMBER"] = name
        # The later one wins, also over what the stack sets itself.
        return plain_environment(**(self._common() | own | self.overrides | self.deployments.get(name, {})))

    def _common(self) -> dict[str, str]:
        return {
            "KEYFOB_MODE": "development",
            "KEYFOB_KAFKA_BOOTSTRAP": self.kafka,
            # The platform has a single broker, and Apache Kafka refuses topics with more replicas than brokers.
            "KEYFOB_KAFKA_REPLICATION": "1",
            "KEYFOB_POLICY_KEY": self.layout.signing_key("policy").verify_key.to_base64(),
            "KEYFOB_CATALOG_KEY": self.layout.signing_key("sync").verify_key.to_base64(),
            "KEYFOB_ADMIN_ISSUER": self.issuer,
            "KEYFOB_ADMIN_JWKS_URI": f"{self.issuer}/jwks",
            # Into a file Python writes in blocks: the last lines before a kill would be missing from the log.
            "PYTHONUNBUFFERED": "1",
        }

    def _own(self, service: str, name: str) -> dict[str, str]:
        settings = {}
        if service in SCHEMAS:
            settings = {
                "DATABASE_URL": f"postgresql+asyncpg://keyfob_{service}@{self.postgres}/{DATABASE}",
                "DATABASE_PASSWORD_FILE": str(self.layout.secret_file(f"database-{service}")),
            }
        match service:
            case "sync":
                settings |= {
                    "SIGNING_KEY_FILE": str(self.layout.signing_key_file("sync")),
                    "CREDENTIALS_DIR": str(self.layout.credentials("sync")),
                    "FEED_SECRETS_DIR": str(self.layout.secret_file("feeds")),
                }
            case "policy":
                keys = (self.layout.signing_key(replica).verify_key.to_base64() for replica in RESOLVERS)
                settings |= {
                    "SIGNING_KEY_FILE": str(self.layout.signing_key_file("policy")),
                    "RESOLVER_KEYS": ",".join(keys),
                    "RESOLVER_URLS": ",".join(self.url(replica) for replica in RESOLVERS),
                }
            case "resolver":
                settings |= {
                    "REPLICA_ID": name,
                    "SIGNING_KEY_FILE": str(self.layout.signing_key_file(name)),
                    "CREDENTIALS_DIR": str(self.layout.credentials("resolver")),
                    "KEYS_DIR": str(self.layout.installation_keys),
                }
            case "gateway":
                settings |= {
                    "IDENTITY_DIR": str(self.layout.instance(name) / "identity"),
                    "ENROLMENT_TOKEN_FILE": str(self.layout.instance(name) / "enrolment.token"),
                    "NAME": name,
                    "POLICY_URL": self.url("policy"),
                    "RESOLVER_URLS": ",".join(self.url(replica) for replica in RESOLVERS),
                    # All that the stack keeps is one user's here: other services' keys and credentials too.
                    "SANDBOX_HIDES": str(self.layout.root),
                    "SANDBOX_SHOWS": ",".join(map(str, sorted(_PROGRAMS))),
                }
        return settings
