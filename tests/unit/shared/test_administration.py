"""Who may administer is decided by groups alone, and a group may give several roles."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from shared.administration import AdminGuard, Administrator, Role, bearer_token, roles_of
from shared.config import AdminSettings
from shared.errors import Forbidden, TokenInvalid, Unauthenticated
from shared.events.changes import Actor
from tests.unit.identity.issuers import Clock, Issuer, verifier

SETTINGS = AdminSettings(admin_group="admins", operator_group="operators", auditor_group="auditors")


def request(*authorization: str) -> Request:
    headers = [(b"authorization", value.encode("latin-1")) for value in authorization]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": headers})


def test_each_group_gives_its_role() -> None:
    assert roles_of(frozenset({"admins"}), SETTINGS) == {Role.ADMIN}
    assert roles_of(frozenset({"operators", "auditors", "others"}), SETTINGS) == {Role.OPERATOR, Role.AUDITOR}
    assert roles_of(frozenset({"Admins", "admin", ""}), SETTINGS) == frozenset()


def test_a_group_that_is_named_for_two_roles_gives_both() -> None:
    one_team = AdminSettings(admin_group="team", operator_group="team", auditor_group="auditors")
    assert roles_of(frozenset({"team"}), one_team) == {Role.ADMIN, Role.OPERATOR}


@pytest.mark.parametrize("header", ["Bearer t.o.k", "bearer t.o.k", "BEARER   t.o.k  "])
def test_the_scheme_is_read_without_regard_to_case_and_space(header: str) -> None:
    assert bearer_token(request(header)) == "t.o.k"


@pytest.mark.parametrize("header", [(), ("",), ("Bearer",), ("Bearer   ",), ("Basic dTpw",), ("t.o.k",)])
def test_without_a_bearer_token_nobody_is_known(header: tuple[str, ...]) -> None:
    with pytest.raises(Unauthenticated):
        bearer_token(request(*header))


class TestGuard:
    @pytest.fixture
    def issuer(self) -> Issuer:
        return Issuer()

    @pytest.fixture
    def guard(self, issuer: Issuer) -> AdminGuard:
        return AdminGuard(verifier(issuer, Clock()), SETTINGS)

    @staticmethod
    async def ask(guard: AdminGuard, token: str, *roles: Role) -> Administrator:
        return await guard.requires(*roles)(request(f"Bearer {token}"))

    async def test_an_admin_may_do_everything(self, guard: AdminGuard, issuer: Issuer) -> None:
        token = issuer.token(groups=["admins"])
        for roles in ((), (Role.OPERATOR,), (Role.AUDITOR,), tuple(Role)):
            assert (await self.ask(guard, token, *roles)).roles == {Role.ADMIN}

    async def test_another_role_opens_only_what_names_it(self, guard: AdminGuard, issuer: Issuer) -> None:
        token = issuer.token(groups=["auditors"])
        assert await self.ask(guard, token, Role.OPERATOR, Role.AUDITOR)
        for roles in ((), (Role.ADMIN,), (Role.OPERATOR,)):
            with pytest.raises(Forbidden):
                await self.ask(guard, token, *roles)

    async def test_a_refusal_names_the_roles_that_would_do(self, guard: AdminGuard, issuer: Issuer) -> None:
        token = issuer.token(groups=["others"])
        with pytest.raises(Forbidden, match="auditor or operator"):
            await self.ask(guard, token, Role.OPERATOR, Role.AUDITOR)
        with pytest.raises(Forbidden, match="role admin"):
            await self.ask(guard, token)

    async def test_a_token_that_does_not_verify_is_nobody_whatever_it_claims(self, guard: AdminGuard) -> None:
        stranger = Issuer().token(groups=["admins"], iss="https://elsewhere.example")
        with pytest.raises(TokenInvalid):
            await self.ask(guard, stranger)

    async def test_records_name_the_person_as_their_identity_provider_does(
        self, guard: AdminGuard, issuer: Issuer
    ) -> None:
        found = await self.ask(guard, issuer.token(sub="ada", groups=["admins"]))
        assert found.actor == Actor(idp="idp/1", subject="ada")
