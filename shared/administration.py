"""Who may administer: OIDC tokens, roles by group. The same rule in every service's admin API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from starlette.requests import Request

from shared.config import AdminSettings
from shared.errors import Forbidden, Unauthenticated
from shared.events.changes import Actor
from shared.identity.tokens import Subject, TokenVerifier


class Role(StrEnum):
    """What a person may do: everything, sync and keys, or read everything."""

    ADMIN = "admin"
    OPERATOR = "operator"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True)
class Administrator:
    """Somebody with at least one role."""

    subject: Subject
    roles: frozenset[Role]

    @property
    def actor(self) -> Actor:
        """As records name them."""
        return Actor(idp=self.subject.idp_id, subject=self.subject.subject)


def bearer_token(request: Request) -> str:
    """The token of an `Authorization: Bearer …` header (RFC 6750)."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("This needs an access token in the Authorization header.")
    return token.strip()


def roles_of(groups: frozenset[str], settings: AdminSettings) -> frozenset[Role]:
    """The roles that a person's groups give."""
    # Pairs and not a mapping by group: one group may be named for two roles, and gives both.
    table = (
        (Role.ADMIN, settings.admin_group),
        (Role.OPERATOR, settings.operator_group),
        (Role.AUDITOR, settings.auditor_group),
    )
    return frozenset(role for role, group in table if group in groups)


@dataclass(frozen=True, slots=True)
class AdminGuard:
    """FastAPI dependencies: `Depends(guard.requires(Role.ADMIN))` gives the `Administrator` or refuses."""

    verifier: TokenVerifier
    settings: AdminSettings

    def requires(self, *roles: Role) -> Callable[[Request], Awaitable[Administrator]]:
        """A dependency that lets through whoever has one of `roles`; an admin always has."""

        async def authenticate(request: Request) -> Administrator:
            subject = await self.verifier.verify(bearer_token(request))
            held = roles_of(subject.groups, self.settings)
            # Without a role named, only an admin: what somebody forgot to open stays shut.
            if not held & {Role.ADMIN, *roles}:
                raise Forbidden("This needs the role " + " or ".join(sorted(roles) or ["admin"]) + ".")
            return Administrator(subject, held)

        return authenticate
