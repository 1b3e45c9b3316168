"""The real `keyfob` command, as an admin and a script use it."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.dev.demo.stage import FIELD, SERVER, Stage
from services.dev.platform.ports import LOOPBACK, free_port
from services.dev.platform.processes import plain_environment

KEYFOB = Path(sys.executable).with_name("keyfob")
REFERENCES = ["hospital-a/db-url", "hospital-b/db-url"]


@dataclass(frozen=True, slots=True)
class Ran:
    """How one command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


async def keyfob(connection: Path, *arguments: str) -> Ran:
    process = await asyncio.create_subprocess_exec(
        KEYFOB,
        *arguments,
        env=plain_environment(KEYFOB_CONNECTION=str(connection)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


@dataclass(frozen=True, slots=True)
class Shell:
    """Somebody at a terminal who uses the stage's connection file."""

    stage: Stage

    async def run(self, *arguments: str) -> Ran:
        ran = await keyfob(self.stage.stack.layout.connection, *arguments)
        values = [password for hospital in self.stage.hospitals for password in hospital.used]
        assert not [value for value in values if value in ran.out + ran.err]
        return ran

    async def all(self, *lines: str) -> list[Ran]:
        return await asyncio.gather(*(self.run(*line.split()) for line in lines))


@pytest.fixture
def shell(furnished: Stage) -> Shell:
    return Shell(furnished)


def refused(ran: Ran, *words: str) -> None:
    """One sentence on stderr, nothing on stdout, a non-zero code."""
    assert ran.code == 1, ran
    assert ran.out == ""
    assert ran.err.startswith("keyfob: ")
    assert ran.err.count("\n") == 1, ran.err
    assert [word for word in words if word not in ran.err] == [], ran.err


async def test_lists_are_json_for_scripts(shell: Shell) -> None:
    ran = await shell.all(
        "source list --json",
        "source coverage --json",
        "reference list --json",
        "server list --json",
        "profile list --json",
        "profile mappings --json",
        "idp list --json",
        "binding list --json",
        "instance list --json",
        "notice list --json",
        "audit list --json --limit 1000",
        "audit leases --json",
    )
    sources, coverage, references, servers, profiles, mappings, idps, bindings, instances, *_ = (x.json for x in ran)
    assert [(source["name"], source["reachable"]) for source in sources] == [("hospitals", True)]
    assert coverage[0]["source"] == "hospitals"
    assert sorted(reference["name"] for reference in references) == REFERENCES
    assert all(reference["state"] == "active" for reference in references)
    assert [server["name"] for server in servers] == [SERVER]
    assert {"hospital-a", "hospital-b"} <= {profile["name"] for profile in profiles}
    assert {mapping["profile_name"]: mapping["group"] for mapping in mappings}["hospital-a"] == "staff-hospital-a"
    assert [idp["name"] for idp in idps] == ["development"]
    assert all(binding["current"] and binding["field"] == FIELD for binding in bindings)
    heard = {instance["name"]: instance for instance in instances}
    assert {"gateway-1", "gateway-2"} <= heard.keys()
    assert all(heard[name]["last_heard"] for name in ("gateway-1", "gateway-2"))


async def test_lists_are_tables_for_people(shell: Shell) -> None:
    references, sources, instances, shown, records = await shell.all(
        "reference list", "source list", "instance list", f"reference show {REFERENCES[0]}", "audit list"
    )
    for ran in (references, sources, instances, shown, records):
        assert ran.code == 0, ran.err
    assert all(name in references.out for name in REFERENCES)
    assert "hospitals" in sources.out
    assert "gateway-1" in instances.out
    assert "active" in shown.out
    assert REFERENCES[0] in records.out


async def test_a_grant_comes_and_goes_and_the_command_says_who_acted(shell: Shell) -> None:
    limits = ("--server", SERVER, "--label.env", "night")
    added = await shell.run("grant", "add", "--profile", "hospital-b", "--reference", REFERENCES[1], *limits, "--json")
    grant = added.json["entity_id"]
    (listed,) = [each for each in (await shell.run("grant", "list", "--json")).json if each["id"] == grant]
    assert (listed["profile_name"], listed["reference_name"], listed["server_name"]) == (
        "hospital-b",
        REFERENCES[1],
        SERVER,
    )
    assert listed["labels"] == {"env": "night"}
    removed = (await shell.run("grant", "remove", grant, "--wait-s", "30", "--json")).json
    convergence = removed["convergence"]
    assert convergence["converged"]
    assert {"gateway-1", "gateway-2", "resolver-1", "resolver-2"} <= {each["name"] for each in convergence["members"]}
    by_notice, by_change = await shell.all(
        f"notice show {convergence['notice']['id']}", f"notice show {removed['change']['event_id']}"
    )
    for ran in (by_notice, by_change):
        assert ran.code == 0, ran.err
        assert "gateway-1" in ran.out
        assert "Everybody has acted." in ran.out
    refused(await shell.run("grant", "remove", grant), grant)


async def test_an_instance_is_banned_and_let_in_again(shell: Shell) -> None:
    banned = await shell.run("instance", "ban", "gateway-2", "--wait-s", "0", "--json")
    try:
        assert banned.json["change"]["event_id"]
        states = {each["name"]: each["state"] for each in (await shell.run("instance", "list", "--json")).json}
        assert states["gateway-2"] == "banned"
        assert states["gateway-1"] == "active"
    finally:
        allowed = await shell.run("instance", "allow", "gateway-2")
    assert allowed.code == 0, allowed.err
    states = {each["name"]: each["state"] for each in (await shell.run("instance", "list", "--json")).json}
    assert states["gateway-2"] == "active"


async def test_a_reference_is_described_and_a_source_synced(shell: Shell) -> None:
    described = await shell.run("reference", "set", REFERENCES[0], "--owner", "ward 3")
    assert described.code == 0, described.err
    assert (await shell.run("reference", "show", REFERENCES[0], "--json")).json["owner"] == "ward 3"
    synced = await shell.run("sync", "hospitals", "--json")
    assert synced.json["state"] == "done"
    assert synced.json["seen"] >= len(REFERENCES)


async def test_the_log_is_asked_by_reference_and_subject(shell: Shell) -> None:
    records = (await shell.run("audit", "list", "--reference", REFERENCES[0], "--json")).json
    assert records
    assert all(REFERENCES[0] in {each["name"] for each in record["references"]} for record in records)
    nobody = await shell.run("audit", "list", "--subject", "nobody")
    assert (nobody.code, nobody.out.strip()) == (0, "Audit: none")


async def test_names_that_nothing_has_are_one_sentence(shell: Shell) -> None:
    for ran, word in zip(
        await shell.all(
            "reference show no-such",
            "sync no-such",
            "grant remove no-such",
            "instance ban no-such",
            "notice show change/no-such",
            "notice show notice/no-such",
            "server show no-such",
            "grant add --profile no-such --reference no-such",
        ),
        ["no-such", "", "no-such", "no-such", "no-such", "", "no-such", "`reference`"],
        strict=True,
    ):
        refused(ran, word)


async def test_trouble_on_the_way_is_one_sentence(furnished: Stage, tmp_path: Path) -> None:
    layout, issuer = furnished.stack.layout, furnished.stack.issuer
    known = json.loads(layout.connection.read_bytes())
    auditor = tmp_path / "auditor.token"
    auditor.touch(mode=0o600)
    auditor.write_text(issuer.token("aud", ["keyfob-auditors"]))
    stranger = tmp_path / "stranger.token"
    stranger.touch(mode=0o600)
    stranger.write_text("not-a-token")
    nobody_there = f"http://{LOOPBACK}:{free_port()}"

    def connection(name: str, **changed: object) -> Path:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(known | changed))
        return path

    down = connection("down", urls=dict.fromkeys(known["urls"], nobody_there))
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    add = ("grant", "add", "--profile", "hospital-b", "--reference", REFERENCES[1])
    ran = await asyncio.gather(
        keyfob(down, "grant", "list"),
        keyfob(tmp_path / "absent.json", "grant", "list"),
        keyfob(broken, "grant", "list"),
        keyfob(connection("stranger", token_file=str(stranger)), "reference", "list"),
        keyfob(connection("auditor", token_file=str(auditor)), *add),
        keyfob(connection("lost", token_file=str(tmp_path / "absent.token")), "source", "list"),
    )
    for one, word in zip(ran, ["is it running?", "keyfob dev", "is not a connection file", "", "", ""], strict=True):
        refused(one, word)
    assert "not-a-token" not in "".join(one.err for one in ran)
    assert (await keyfob(connection("reads", token_file=str(auditor)), "grant", "list", "--json")).code == 0


async def test_a_command_that_does_not_exist_fails(shell: Shell) -> None:
    for ran in await shell.all("grunt list", "grant add --profile hospital-b", "reference list --no-such-option"):
        assert ran.code != 0
