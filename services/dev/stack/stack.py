"""Starts and stops everything in order. Each service is a process of its own, kept running by a supervisor."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from services.cli.connection import Api, Connection
from services.dev.platform import METADATA_ONLY, READ_VALUES, DevIssuer, Platform, Process, Supervisor
from services.dev.platform.broker import Broker
from services.dev.platform.together import together
from services.dev.stack.environments import DATABASE, RESOLVERS, SCHEMAS, SERVICES, Environments
from services.dev.stack.layout import Layout, write_private

SOURCE = "hospitals"
"""The source that a stack has credentials for: its own OpenBao."""
ADMIN = "alice"
ADMIN_GROUP = "keyfob-admins"
_READY_S = 60.0
_TOKEN_TTL_S = 12 * 3600

Report = Callable[[str], None]


class Stack:
    """One installation on this machine. `report` is told what is going on, a line at a time."""

    def __init__(
        self,
        directory: Path,
        *,
        broker: Broker | None = None,
        report: Report = lambda _: None,
        overrides: Mapping[str, str] | None = None,
        durable: bool = True,
    ) -> None:
        self.layout = Layout(directory.resolve())
        self._report = report
        self._overrides = dict(overrides or {})
        self._broker = broker
        self._durable = durable
        self._api: Api | None = None
        self.supervisor = Supervisor()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the platform, then the services, and return when all of them are ready."""
        self._prepare()
        self._report("starting PostgreSQL, the broker, OpenBao and the development issuer")
        await together(self.platform.start(), self._start_issuer())
        self.environments.kafka = self.platform.broker.bootstrap
        self.environments.postgres = f"{self.platform.postgres.host}:{self.platform.postgres.port}"
        await self._furnish_database()
        await self._hand_out_credentials()
        self._write_connection()
        self._report(f"starting {', '.join(SERVICES)}")
        await together(*(self.start_process(name) for name in SERVICES))

    async def stop(self) -> None:
        """Stop everything, last started first."""
        if self._api is not None:
            self._api.close()
            self._api = None
        await self.supervisor.stop_all()
        # A start that failed early has made none.
        if hasattr(self, "platform"):
            await self.platform.stop()

    def _prepare(self) -> None:
        layout = self.layout
        layout.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        issuer = DevIssuer(layout.issuer)
        self.issuer = issuer
        self.environments = Environments(layout, issuer.url, overrides=self._overrides)
        # OpenBao's configuration names the address of sync's feed, so sync's port is settled before anything runs.
        self.platform = Platform(
            directory=layout.root,
            broker=self._broker,
            durable=self._durable,
            audit_webhook=f"{self.environments.url('sync')}/v1/feeds/{SOURCE}",
            audit_authorization=f"Bearer {layout.secret(f'feeds/{SOURCE}')}",
        )
        for name in ("policy", "sync", *RESOLVERS):
            # All keys before any process: each one's settings name the public halves of others'.
            layout.signing_key(name)
        layout.make_installation_key()

    async def _start_issuer(self) -> None:
        process = self.issuer.process(log=self.layout.logs / "issuer.log")
        await self.supervisor.start(process, ready=self.issuer.jwks_uri, within_s=_READY_S)

    async def _furnish_database(self) -> None:
        """One database; a role and a schema for each service, and nothing of it for the others."""
        postgres = self.platform.postgres
        await postgres.create_database(DATABASE, owner="keyfob", password=self.layout.secret("database-owner"))
        for service in SCHEMAS:
            role = f"keyfob_{service}"
            absent = f"IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}')"
            await postgres.execute(f"DO $$ BEGIN {absent} THEN CREATE ROLE {role} LOGIN; END IF; END $$")
            await postgres.set_password(role, self.layout.secret(f"database-{service}"))
            await postgres.execute(f"GRANT CONNECT ON DATABASE {DATABASE} TO {role}")
            await postgres.execute(f"CREATE SCHEMA IF NOT EXISTS {role} AUTHORIZATION {role}", database=DATABASE)

    async def _hand_out_credentials(self) -> None:
        """A token that may see metadata for sync, one that may read values for the resolver."""
        openbao = self.platform.openbao
        for service, policy in (("sync", METADATA_ONLY), ("resolver", READ_VALUES)):
            credential = {"origin": openbao.url, "token": await openbao.token_for([policy])}
            write_private(self.layout.credentials(service) / f"{SOURCE}.json", json.dumps(credential))

    def _write_connection(self) -> None:
        write_private(self.layout.admin_token, self.issuer.token(ADMIN, [ADMIN_GROUP], ttl_s=_TOKEN_TTL_S))
        urls = {name: self.environments.url(name) for name in ("policy", "sync", "notifier", "audit")}
        urls["resolver"] = self.environments.url(RESOLVERS[0])
        connection = {"urls": urls, "token_file": str(self.layout.admin_token)}
        write_private(self.layout.connection, json.dumps(connection, indent=2))

    def api(self) -> Api:
        """The admin's way to the services, the same for as long as the stack lives."""
        if self._api is None:
            self._api = Api(Connection.model_validate_json(self.layout.connection.read_bytes()))
        return self._api

    async def call(self, method: str, service: str, path: str, **more: Any) -> Any:
        """One call of the admin's, without holding up the event loop."""
        return await asyncio.to_thread(self.api().call, method, service, path, **more)

    async def every(self, service: str, path: str, **query: Any) -> list[dict[str, Any]]:
        """All items of a list, as the admin sees it."""
        return await asyncio.to_thread(self.api().every, service, path, **query)

    async def start_process(self, name: str) -> None:
        """Start one service or gateway and wait until it is ready."""
        service = name.partition("-")[0]
        process = Process(
            name,
            (sys.executable, "-m", "services", "serve", service),
            env=self.environments.of(name),
            log=self.layout.logs / f"{name}.log",
            cwd=self.layout.root,
        )
        await self.supervisor.start(process, ready=f"{self.environments.url(name)}/readyz", within_s=_READY_S)

    async def enrol_gateway(self, name: str, *, labels: dict[str, str] | None = None) -> None:
        """Make an enrolment for a gateway that may run every server, unless it has enrolled before."""
        token_file = self.layout.instance(name) / "enrolment.token"
        # Its token is for the first start only, and a second enrolment by the name of an instance is a conflict.
        if (self.layout.instance(name) / "identity").exists():
            return
        body = {"name": name, "labels": labels or {}, "allowed_servers": ["*"], "expires_in_s": 600}
        answer = await self.call("POST", "policy", "/v1/enrolments", body=body)
        write_private(token_file, answer["token"])

    async def start_gateway(self, name: str) -> str:
        """Start a gateway; its URL."""
        await self.start_process(name)
        return self.environments.url(name)
