"""The installation of the canary run: each way for a value to reach a server, each with a canary of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from mcp import Client

from services.dev.demo.agents import Agent
from services.dev.demo.people import person
from services.dev.demo.stage import GATEWAYS, Stage
from services.dev.demo.steps.opening import start_everything
from services.dev.platform import METADATA_ONLY, READ_VALUES
from services.dev.platform.ports import LOOPBACK, free_port
from services.dev.platform.processes import plain_environment
from services.dev.stack import SOURCE
from services.dev.stack.environments import RESOLVERS
from services.dev.stack.layout import write_private
from tests.fakes.http_server import HttpTeller, http_teller
from tests.leaks.canaries import Canaries, Canary
from tests.leaks.places import Sight
from tests.leaks.processes import Watch
from tests.leaks.spoiling import Spoiler, spoiler
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
CARELESS = Path(__file__).with_name("careless_server.py")
PROFILE, GROUP = "ward", "staff-ward"
FIELD = "TOKEN"
VARIABLE = "WARD_TOKEN"
REAL, SPOILT = SOURCE, "spoilt"
OWN, SHARED, VAULT, MAPPED, FILE, HTTP, FAILING, UNSURE = (
    *("own-value", "shared-value", "from-vault", "from-environment", "as-file", "over-http", "failing", "from-spoilt"),
)
STDIO = (OWN, SHARED, VAULT, MAPPED, FILE, FAILING, UNSURE)
ORIGINS: dict[str, dict[str, Any]] = {
    OWN: {"local": "subject"},
    SHARED: {"local": "profile"},
    VAULT: {"reference": "leaks/token"},
    MAPPED: {"environment": {"variable": VARIABLE, "labels": {}}},
    FILE: {"reference": "leaks/file"},
    HTTP: {"reference": "leaks/header"},
    FAILING: {"reference": "leaks/token"},
    UNSURE: {"reference": "unsure/token"},
}
"""Server → where the value of its field comes from."""
SETTINGS = {
    # Servers that nobody uses end soon, and a rotation takes long enough to be killed in.
    "KEYFOB_GATEWAY_IDLE_S": "8",
    # No refusal takes long to come.
    "KEYFOB_GATEWAY_RESOLVE_DEADLINE_S": "2.5",
    "KEYFOB_RESOLVER_REWRAP_BATCH": "1",
    # Processes run the sources that these tests stand in.
    "PYTHONPATH": str(ROOT),
}
Call = tuple[str, dict[str, Any]]
"""A tool and its arguments."""
_AGENT_S = 20.0
_COMMAND_S = 60.0


@dataclass(slots=True)
class Ward:
    """The installation, and everything that the run has to remember."""

    stage: Stage
    canaries: Canaries
    watch: Watch
    spoiler: Spoiler
    teller: HttpTeller
    teller_url: str
    http: httpx2.AsyncClient
    answers: list[Sight] = field(default_factory=list, repr=False)
    driven: dict[str, int] = field(default_factory=dict)
    """What was done how often, for the summary."""
    _agents: int = 0

    def url(self, service: str) -> str:
        return self.stage.stack.environments.url(service)

    def heard(self, what: str, content: str | bytes) -> None:
        """Keep what a client was answered, to be searched."""
        self.answers.append(Sight("answer", what, content if isinstance(content, bytes) else content.encode()))

    def did(self, what: str, times: int = 1) -> None:
        self.driven[what] = self.driven.get(what, 0) + times

    def somebody(self, groups: Iterable[str] = (GROUP,)) -> Agent:
        """An agent whom nobody has seen before: nothing is resolved for it yet."""
        self._agents += 1
        agent = self.stage.agent(f"somebody-{self._agents}", list(groups))
        self.canaries.add("token of somebody", agent.token, [agent.token.encode()[-40:]])
        return agent

    async def write(self, path: str, *servers: str, plain: bool = False) -> Canary:
        """A new value in OpenBao, as whoever rotates it would write it."""
        canary = self.canaries.new(f"OpenBao value of {path}", plain=plain, servers=servers)
        await self.stage.stack.platform.openbao.put(path, {"value": canary.text})
        return canary

    async def enter(self, agent: Agent, server: str = OWN, *, profile: str | None = None) -> int:
        """A value of somebody's own, or of the profile; the status, 0 for none."""
        canary = self.canaries.new(f"local value for {server}", servers=[server])
        query = {"server": server, "field": FIELD} | ({} if profile is None else {"profile": profile})
        headers = agent.headers(**{"Content-Type": "application/octet-stream"})
        with suppress(httpx2.HTTPError):
            url = self.url(RESOLVERS[self._agents % 2]) + "/v1/values"
            answer = await self.http.put(url, params=query, content=canary.secret, headers=headers)
            self.heard("entering a value", answer.content)
            return answer.status_code
        return 0

    async def talk(self, agent: Agent, server: str, gateway: str, *calls: Call) -> list[str]:
        """What a server's tools say by way of a gateway in one session: answers, errors, or its end."""
        said: list[str] = []
        patience = asyncio.timeout(_AGENT_S + len(calls))
        try:
            async with patience, agent.connect(f"{self.url(gateway)}/mcp/{server}") as session:
                for tool, arguments in calls:
                    said.append(await _said(session.client, tool, arguments))
        except Exception as error:  # noqa: BLE001 - whatever the SDK makes of it is what the agent gets
            said.append("failed: " + " / ".join(words_of(error)))
        self.heard(f"{server} at {gateway}: {calls[0]} and {len(calls) - 1} more", "\n".join(said))
        self.did("tool calls", len(calls))
        return said

    async def knock(self, agent: Agent, server: str, gateway: str) -> bool:
        """Whether an agent's first request is refused."""
        with suppress(httpx2.HTTPError):
            refusal = await agent.refusal(f"{self.url(gateway)}/mcp/{server}")
            self.heard(f"opening {server} at {gateway}", refusal.body if refusal else b"")
            return refusal is not None
        return True

    async def keyfob(
        self, *arguments: str, who: str | None = None, entering: bytes = b"", given: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Run the real command, `given` in its environment; its code and what it printed."""
        connection = self.stage.stack.layout.connection if who is None else self._people() / f"{who}.json"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services", *arguments),
            cwd=ROOT,
            env=plain_environment(KEYFOB_CONNECTION=str(connection), **(given or {})),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(_COMMAND_S):
            out, err = await process.communicate(entering)
        self.heard(f"keyfob {' '.join(arguments[:2])}", out + err)
        self.did("commands")
        return process.returncode or 0, out.decode()

    def enlist(self, name: str, groups: list[str]) -> Agent:
        """A person with a terminal and a token of their own."""
        made = person(self.stage, name, groups)
        self.canaries.token(f"token of {name}", made.agent.token)
        return made.agent

    def _people(self) -> Path:
        return self.stage.stack.layout.root / "people"


def words_of(error: BaseException) -> list[str]:
    """Everything that an error says, and those that it holds."""
    if isinstance(error, BaseExceptionGroup):
        return [word for one in error.exceptions for word in words_of(one)]
    cause = error.__cause__ or error.__context__
    return [repr(error), str(vars(error)), *(words_of(cause) if cause is not None else [])]


async def _said(client: Client, tool: str, arguments: dict[str, Any]) -> str:
    try:
        async with asyncio.timeout(_AGENT_S):
            return (await client.call_tool(tool, arguments)).model_dump_json()
    except Exception as error:  # noqa: BLE001 - as above
        return "failed: " + " / ".join(words_of(error))


@asynccontextmanager
async def ward(stage: Stage, watch: Watch) -> AsyncIterator[Ward]:
    """Everything defined, assigned and entered; the gateways started with a variable each."""
    openbao = stage.stack.platform.openbao
    async with (
        spoiler(openbao.url) as spoiling,
        _careless_http() as (teller, url),
        httpx2.AsyncClient(timeout=20) as http,
    ):
        made = Ward(stage, Canaries(), watch, spoiling, teller, url, http)
        for gateway in GATEWAYS:
            canary = made.canaries.new(f"variable of {gateway}", servers=[MAPPED], gateways=[gateway])
            given = {VARIABLE: canary.text, "KEYFOB_GATEWAY_ENVIRONMENT": VARIABLE}
            stage.stack.environments.deployments[gateway] = given
        await start_everything(stage)
        for path, servers in (("token", (VAULT, FAILING)), ("file", (FILE,)), ("header", (HTTP,))):
            await made.write(f"leaks/{path}", *servers, plain=path == "header")
        await made.write("unsure/token", UNSURE)
        await _connect(made)
        await _administer(made)
        _own_secrets(made)
        yield made


async def _connect(made: Ward) -> None:
    """The real source, and the same one behind somebody who spoils its answers."""
    stack = made.stage.stack
    for name, origin, prefix in ((REAL, made.spoiler.origin, "leaks"), (SPOILT, made.spoiler.url, "unsure")):
        for service, policy in (("sync", METADATA_ONLY), ("resolver", READ_VALUES)):
            token = await stack.platform.openbao.token_for([policy])
            made.canaries.add(f"{service}'s token for {name}", token)
            write_private(
                stack.layout.credentials(service) / f"{name}.json", json.dumps({"origin": origin, "token": token})
            )
        place = {"provider": "kv2", "origin": origin, "mount": "secret", "prefix": prefix}
        await stack.call("POST", "sync", "/v1/sources", body={"name": name, "place": place})
        run = await stack.call("POST", "sync", "/v1/syncs", body={"source": name})
        while run["state"] == "running":
            run = await stack.call("GET", "sync", f"/v1/syncs/{run['id']}", query={"wait_s": 5})
        assert run["state"] == "done", run


def definition(made: Ward, server: str) -> dict[str, Any]:
    """How a server is started or called."""
    if server == HTTP:
        header = {"inject": "header", "name": FIELD, "header": "Authorization", "prefix": "Bearer "}
        return {"transport": "http", "url": made.teller_url, "fields": [header]}
    name, kind = ("TOKEN_FILE", "file") if server == FILE else (FIELD, "environment")
    return {
        "transport": "stdio",
        "command": sys.executable,
        "args": [str(CARELESS), f"--serves={server}", *(["--fails"] if server == FAILING else [])],
        "fields": [{"inject": kind, "name": name}],
    }


async def _administer(made: Ward) -> None:
    call, issuer = made.stage.stack.call, made.stage.stack.issuer.url
    identity = {"name": "development", "issuer": issuer, "jwks_uri": f"{issuer}/jwks"}
    await call("POST", "policy", "/v1/idps", body=identity)
    await call("POST", "policy", "/v1/profiles", body={"name": PROFILE})
    await call("POST", "policy", "/v1/mappings", body={"profile": PROFILE, "idp": "development", "group": GROUP})
    await call("POST", "policy", "/v1/variables", body={"name": VARIABLE, "labels": {}})
    for reference in sorted({origin["reference"] for origin in ORIGINS.values() if "reference" in origin}):
        await call("POST", "policy", "/v1/grants", body={"profile": PROFILE, "reference": reference})
    for server, origin in ORIGINS.items():
        described = definition(made, server)
        await call("POST", "policy", "/v1/servers", body={"name": server, "definition": described, "owner": "alice"})
        (name,) = (each["name"] for each in described["fields"])
        await call(
            "POST", "policy", "/v1/bindings", body={"profile": PROFILE, "server": server, "field": name, **origin}
        )


def _own_secrets(made: Ward) -> None:
    """What the stack has made for itself: passwords, tokens and keys of services."""
    layout, canaries = made.stage.stack.layout, made.canaries
    for path in sorted((layout.root / "secrets").rglob("*")):
        if path.is_file():
            canaries.add(f"secret {path.name}", path.read_text())
    canaries.token("token of the admin", layout.admin_token.read_text())
    for gateway in GATEWAYS:
        canaries.add(f"enrolment token of {gateway}", (layout.instance(gateway) / "enrolment.token").read_text())
    kept = json.loads((layout.own_data[1] / "keys.json").read_text())
    canaries.add("OpenBao's root token", kept["root"])
    canaries.add("OpenBao's unseal key", kept["unseal"])
    canaries.add("PostgreSQL's administrator", (layout.own_data[0] / "superuser").read_text())


class _Server(uvicorn.Server):
    """One that leaves signals to the test run."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _careless_http() -> AsyncIterator[tuple[HttpTeller, str]]:
    """An MCP server over HTTP, in this process, that tells the headers that it is called with."""
    port, ready, over = free_port(), asyncio.get_running_loop().create_future(), asyncio.Event()

    async def live() -> None:
        # In a task of its own, since a fixture is left by another one than it was entered by.
        async with http_teller() as (teller, _):
            config = uvicorn.Config(teller, host=LOOPBACK, port=port, lifespan="off", log_config=None, access_log=False)
            server = _Server(config)
            serving = asyncio.create_task(server.serve())
            await until(lambda: server.started, within=10)
            ready.set_result(teller)
            await over.wait()
            server.should_exit = True
            await serving

    task = asyncio.create_task(live())
    try:
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        yield ready.result(), f"http://{LOOPBACK}:{port}/mcp"
    finally:
        over.set()
        await task
