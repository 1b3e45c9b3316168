"""Steps 1 to 3: the parts, the hospitals, the admin."""

from __future__ import annotations

import asyncio

from services.dev.demo.hospitals import PATIENTS, Hospital
from services.dev.demo.narration import expect
from services.dev.demo.stage import FIELD, GATEWAYS, REGIONS, SERVER, Stage
from services.dev.stack import SOURCE


async def start_everything(stage: Stage) -> None:
    """Two gateways, each enrolled with keys and labels of its own; the rest was started before the curtain."""
    for name in GATEWAYS:
        await stage.stack.enrol_gateway(name, labels={"region": REGIONS[name]})
    await asyncio.gather(*map(stage.stack.start_gateway, GATEWAYS))
    processes = stage.stack.supervisor.processes
    stage.narrator.say(f"{len(processes)} processes of ours: {', '.join(processes)}")
    instances = await stage.stack.every("policy", "/v1/instances")
    keys = {instance["signing_key"] for instance in instances}
    expect(len(keys) == len(GATEWAYS), "each gateway is enrolled with keys of its own")


async def open_hospitals(stage: Stage) -> None:
    """Two databases with different people; only the connection URLs go into OpenBao."""
    platform = stage.stack.platform
    for name in PATIENTS:
        hospital = Hospital(name, platform.postgres, platform.openbao)
        await hospital.open()
        stage.hospitals.append(hospital)
        stage.narrator.say(f"{name}: {', '.join(hospital.patients)}; its URL is in OpenBao at secret/{hospital.path}")


async def administer(stage: Stage) -> None:
    """Source, sync, server, profiles, groups, grants, bindings: the admin sees names and versions, never a value."""
    await _connect_source(stage)
    definition = {
        "transport": "stdio",
        "command": str(stage.tool / "mcp-alchemy"),
        "fields": [{"inject": "environment", "name": FIELD}],
    }
    call = stage.stack.call
    await call("POST", "policy", "/v1/servers", body={"name": SERVER, "definition": definition, "owner": "alice"})
    issuer = stage.stack.issuer.url
    identity = {"name": "development", "issuer": issuer, "jwks_uri": f"{issuer}/jwks"}
    await call("POST", "policy", "/v1/idps", body=identity)
    for hospital in stage.hospitals:
        await _assign(stage, hospital)
    stage.narrator.say(f"field {FIELD} of {SERVER} comes from a different reference for each profile")


async def _connect_source(stage: Stage) -> None:
    call, narrator = stage.stack.call, stage.narrator
    place = {"provider": "kv2", "origin": stage.stack.platform.openbao.url, "mount": "secret"}
    await call("POST", "sync", "/v1/sources", body={"name": SOURCE, "place": place})
    run = await call("POST", "sync", "/v1/syncs", body={"source": SOURCE})
    while run["state"] == "running":
        run = await call("GET", "sync", f"/v1/syncs/{run['id']}", query={"wait_s": 5})
    expect(run["state"] == "done", "the sync is done")
    references = await stage.stack.every("sync", "/v1/references")
    narrator.records({"reference": "name", "source": "source", "version": "version", "state": "state"}, references)
    names = sorted(reference["name"] for reference in references)
    expect(names == sorted(hospital.path for hospital in stage.hospitals), "the catalog has exactly the two references")


async def _assign(stage: Stage, hospital: Hospital) -> None:
    call, profile = stage.stack.call, hospital.profile
    await call("POST", "policy", "/v1/profiles", body={"name": profile})
    mapping = {"profile": profile, "idp": "development", "group": f"staff-{profile}"}
    await call("POST", "policy", "/v1/mappings", body=mapping)
    granted = await call("POST", "policy", "/v1/grants", body={"profile": profile, "reference": hospital.path})
    stage.grants[profile] = granted["entity_id"]
    binding = {"profile": profile, "server": SERVER, "field": FIELD, "reference": hospital.path}
    await call("POST", "policy", "/v1/bindings", body=binding)
    stage.narrator.say(f"group staff-{profile} → profile {profile} → {hospital.path}")
