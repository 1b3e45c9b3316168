"""People at the command line: everything that it offers, keys included, and what it is told wrongly."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from services.cli.connection import CommandFailed
from services.dev.demo.agents import Agent
from services.dev.demo.stage import GATEWAYS
from services.dev.stack.environments import RESOLVERS
from services.dev.stack.layout import write_private
from shared.custody import RecoveryKey
from shared.custody.directory import key_files
from shared.custody.keks import load_kek
from tests.leaks.ward import GROUP, OWN, PROFILE, SHARED, VAULT, Ward
from tests.waiting import until

_LOOKS = (
    *("source list", "source coverage", "reference list", "sync", "idp list", "profile list", "profile mappings"),
    *("grant list", "variable list", "binding list", "server list", f"server show {VAULT}", "instance list"),
    *(f"instance show {GATEWAYS[0]}", f"value list --profile {PROFILE}", "keys status", "notice list", "audit list"),
    *("audit leases", f"binding explain --subject nora --server {OWN} --group {GROUP}"),
)
_MANY = 120
_ROTATED_S = 60.0


async def look(ward: Ward) -> None:
    """Every command that shows something."""
    limit = asyncio.Semaphore(2)

    async def one(line: str) -> None:
        async with limit:
            code, _ = await ward.keyfob(*line.split(), "--json")
            assert code == 0, line

    await asyncio.gather(*(one(line) for line in _LOOKS))


async def be_told_wrongly(ward: Ward) -> None:
    """Values where none belong: too long, for nobody, in settings, in files that should hold something else."""
    canary, root = ward.canaries.new("what was typed wrongly", given=True), ward.stage.stack.layout.root
    wrong = Path(root / "people" / "wrong.json")
    write_private(wrong.with_suffix(".token"), canary.text)
    urls = json.loads(ward.stage.stack.layout.connection.read_text())["urls"]
    write_private(wrong, json.dumps({"urls": urls, "token_file": str(wrong.with_suffix(".token"))}))
    broken = root / "people" / "broken.json"
    write_private(broken, json.dumps({"urls": {"policy": canary.text}, "token": canary.text}))
    loose = {"transport": "stdio", "command": [canary.text], "fields": canary.text}
    write_private(root / "people" / "definition.json", json.dumps(loose))
    database = f"postgresql+asyncpg://somebody:{canary.text}@127.0.0.1:1/nowhere"
    attempts: tuple[tuple[tuple[str, ...], str | None, bytes, dict[str, str]], ...] = (
        (("value", "set", "no-such-server", "TOKEN"), "nora", canary.secret, {}),
        (("value", "set", OWN, "NO_SUCH_FIELD"), "nora", canary.secret, {}),
        (("value", "set", OWN, "TOKEN"), "nora", canary.secret * 2000, {}),
        (("value", "set", OWN, "TOKEN"), "wrong", canary.secret, {}),
        (("grant", "list"), "broken", b"", {}),
        (("server", "create", "loose", "--file", str(root / "people" / "definition.json")), None, b"", {}),
        (("keys", "recover"), None, canary.secret, _recovering(ward, root / "empty")),
        (("serve", "policy"), None, b"", {"KEYFOB_POLICY_DATABASE_URL": database, "KEYFOB_POLICY_PORT": canary.text}),
        (("serve", "resolver"), None, b"", {"KEYFOB_MODE": canary.text, "KEYFOB_POLICY_KEY": canary.text}),
    )
    codes = await asyncio.gather(
        *(ward.keyfob(*line, who=who, entering=text, given=more) for line, who, text, more in attempts)
    )
    assert [line for (line, *_), (code, _) in zip(attempts, codes, strict=True) if code == 0] == []
    for path in (wrong, wrong.with_suffix(".token"), broken, root / "people" / "definition.json"):
        path.unlink()


def _recovering(ward: Ward, directory: Path) -> dict[str, str]:
    """The resolver's own settings, on a machine with nothing but the database."""
    known = ward.stage.stack.environments.of(RESOLVERS[0])
    wanted = ("KEYFOB_RESOLVER_DATABASE_URL", "KEYFOB_RESOLVER_DATABASE_PASSWORD_FILE", "KEYFOB_MODE")
    return {name: known[name] for name in wanted} | {"KEYFOB_RESOLVER_KEYS_DIR": str(directory)}


async def rotate_the_key(ward: Ward) -> None:
    """A new key with a recovery key, both resolvers killed in the middle of the rotation, the old key retired."""
    layout, stack = ward.stage.stack.layout, ward.stage.stack
    ward.enlist("olga", ["keyfob-operators"])
    await _enter_many(ward)
    code, made = await ward.keyfob("keys", "generate-recovery", str(layout.root / "safe.recovery"), "--json")
    assert code == 0
    keys, public = layout.installation_keys, json.loads(made)["public"]
    (former,) = (path.stem for path in key_files(keys))
    code, _ = await ward.keyfob("keys", "generate", "--directory", str(keys), "--recovery", public)
    assert code == 0
    _keys(ward, keys, layout.root / "safe.recovery")
    started = await until(lambda: _begun(ward), within=_ROTATED_S, every=0.05, what="every replica has the new key")
    assert started["rotation"]["finished_at"] is None, "there is a middle to be killed in"
    for name in RESOLVERS:
        stack.supervisor.processes[name].kill()
    ward.did("kills", len(RESOLVERS))
    done = await until(lambda: _rotated(ward), within=_ROTATED_S, every=0.2, what="the rotation is finished")
    assert not done["rotation"]["damaged"]
    code, _ = await ward.keyfob("keys", "retire", former, who="olga")
    assert code == 0
    await ward.keyfob("keys", "rotate", who="olga")
    await _recover(ward)


async def _enter_many(ward: Ward) -> None:
    """Enough values that a rotation takes a while; the same one for all, since it is the number that counts."""
    canary, groups = ward.canaries.new("local value of many", servers=[OWN]), [GROUP]
    tokens = [ward.stage.stack.issuer.token(f"many-{number}", groups, ttl_s=900) for number in range(_MANY)]
    url, query = ward.url(RESOLVERS[0]) + "/v1/values", {"server": OWN, "field": "TOKEN"}
    limit = asyncio.Semaphore(8)

    async def enter(token: str) -> int:
        async with limit:
            headers = {"authorization": f"Bearer {token}", "content-type": "application/octet-stream"}
            answer = await ward.http.put(url, params=query, content=canary.secret, headers=headers)
            ward.heard("entering a value", answer.content)
            return answer.status_code

    assert set(await asyncio.gather(*(enter(token) for token in tokens))) <= {200, 201}


async def _begun(ward: Ward) -> dict[str, Any] | None:
    with suppress(CommandFailed):
        answer: dict[str, Any] = await ward.stage.stack.call("POST", "resolver", "/v1/keys/rotations", body={})
        return answer
    return None


async def _rotated(ward: Ward) -> dict[str, Any] | None:
    with suppress(CommandFailed):
        answer: dict[str, Any] = await ward.stage.stack.call("GET", "resolver", "/v1/keys")
        return answer if answer["rotation"]["finished_at"] is not None else None
    return None


async def _recover(ward: Ward) -> None:
    """On another machine, from the database and the recovery key, by its file and typed in."""
    root = ward.stage.stack.layout.root
    safe = root / "safe.recovery"
    code, _ = await ward.keyfob("keys", "recover", str(safe), given=_recovering(ward, root / "recovered"))
    assert code == 0
    typed = safe.read_bytes()
    code, _ = await ward.keyfob("keys", "recover", entering=typed, given=_recovering(ward, root / "recovered"))
    assert code == 0


def _keys(ward: Ward, directory: Path, recovery: Path) -> None:
    for kek in map(load_kek, key_files(directory)):
        ward.canaries.key_text(f"installation key {kek.key_id}", kek.to_text())
        with kek.raw() as raw, raw.reveal() as view:
            ward.canaries.add(f"bytes of the installation key {kek.key_id}", bytes(view))
    key = RecoveryKey.load(recovery)
    ward.canaries.key_text("recovery key", key.to_text())
    with key._raw.reveal() as view:
        ward.canaries.add("bytes of the recovery key", bytes(view))


def signing_keys(ward: Ward) -> None:
    """The private keys of services and gateways, as their files hold them."""
    layout = ward.stage.stack.layout
    for path in sorted((layout.root / "keys").glob("*.key")):
        ward.canaries.add(f"key {path.relative_to(layout.root)}", path.read_bytes().strip())


async def take_away(ward: Ward, nora: Agent) -> None:
    """Values deleted, an enrolment made and withdrawn, a gateway banned and let in again, a grant removed."""
    layout = ward.stage.stack.layout
    token_file = layout.root / "people" / "spare.token"
    spare = ("instance", "enrol", "spare", "--token-file", str(token_file), "--any-server")
    assert (await ward.keyfob(*spare))[0] == 0
    ward.canaries.add("enrolment token of spare", token_file.read_text().strip())
    assert (await ward.keyfob("instance", "withdraw", "spare"))[0] == 0
    assert (await ward.keyfob("value", "set", OWN, "TOKEN", who="nora", entering=_new(ward)))[0] == 0
    await ward.talk(nora, OWN, GATEWAYS[0], ("echo", {"where": "result", "as": "plain"}))
    await asyncio.gather(
        ward.keyfob("value", "delete", OWN, "TOKEN", who="nora"),
        ward.keyfob("value", "delete", SHARED, "TOKEN", "--profile", PROFILE, who="nora"),
    )
    await asyncio.gather(ward.keyfob("instance", "ban", GATEWAYS[1]), ward.keyfob("variable", "remove", "WARD_TOKEN"))
    await asyncio.gather(ward.keyfob("instance", "allow", GATEWAYS[1]), ward.keyfob("server", "remove", VAULT))
    # With them goes what servers were given in files.
    await asyncio.gather(*(ward.stage.stack.supervisor.stop(gateway) for gateway in GATEWAYS))
    # With them goes what servers were given in files.
    await asyncio.gather(*(ward.stage.stack.supervisor.stop(gateway) for gateway in GATEWAYS))


def _new(ward: Ward) -> bytes:
    return ward.canaries.new("local value typed in", servers=[OWN]).secret
