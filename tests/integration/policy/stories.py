"""What tests need to stand before they begin: one hospital with its server, grant and binding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.integration.policy.conftest import PolicyUnderTest, fresh

STDIO = {
    "transport": "stdio",
    "command": "/opt/tools/mcp-alchemy",
    "args": ["--quiet"],
    "fields": [{"inject": "environment", "name": "DB_URL"}],
}


@dataclass(frozen=True, slots=True)
class Hospital:
    """Names and ids of what stands."""

    idp: str
    group: str
    profile: str
    server: str
    reference: str
    reference_id: str
    mapping_id: str
    grant_id: str
    binding_id: str
    server_id: str
    profile_id: str


async def idp_of(policy: PolicyUnderTest) -> str:
    """The development issuer as policy's own identity provider, the same for all tests."""
    body = {"name": "dev", "issuer": policy.issuer.url, "jwks_uri": policy.issuer.jwks_uri}
    await policy.call("POST", "/v1/idps", body)
    return "dev"


async def hospital(policy: PolicyUnderTest, **grant: Any) -> Hospital:
    """A profile with a group, a server, and its reference granted and bound."""
    idp, group = await idp_of(policy), fresh("group")
    profile, server, name = fresh("profile"), fresh("server"), fresh("hospital") + "/db-url"
    (reference,) = await policy.sync.publish(name)
    made_profile = await policy.call("POST", "/v1/profiles", {"name": profile})
    mapping = await policy.call("POST", "/v1/mappings", {"idp": idp, "group": group, "profile": profile})
    made_server = await policy.call("POST", "/v1/servers", {"name": server, "owner": "it", "definition": STDIO})
    granted = await policy.call("POST", "/v1/grants", {"profile": profile, "reference": name, **grant})
    bound = await policy.call(
        "POST", "/v1/bindings", {"profile": profile, "server": server, "field": "DB_URL", "reference": name}
    )
    return Hospital(
        idp=idp,
        group=group,
        profile=profile,
        server=server,
        reference=name,
        reference_id=reference.id,
        mapping_id=mapping["entity_id"],
        grant_id=granted["entity_id"],
        binding_id=bound["entity_id"],
        server_id=made_server["entity_id"],
        profile_id=made_profile["entity_id"],
    )
