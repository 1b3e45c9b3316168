"""The instance's own environment: only what its deployment allows, only on this machine, and never the value told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.client.environment import MOST_VARIABLES, NO_ENVIRONMENT, Environment
from services.gateway.client.instance import Instance
from services.gateway.client.resolving import Wanted
from shared.config import Misconfigured
from shared.errors import Unavailable
from shared.events.receipts import LeaseEnd
from shared.variables import is_reserved_variable
from tests.fakes.agent_side import teller
from tests.fakes.installation import Allowed, Installation, Reference, Variable, revocation
from tests.thoroughness import examples
from tests.waiting import until

TOKEN = "token-of-a"
WANTED = Wanted("teller")


def process(**variables: str) -> dict[bytes, bytes]:
    """A process's environment."""
    return {name.encode(): value.encode() for name, value in variables.items()}


HERE = {"HOSPITAL_DB_URL": "postgres://here", "TENANT_B_DB_URL": "postgres://b", "PATH": "/bin", "EMPTY": ""}


class TestTaking:
    def test_only_allowed_names_are_taken(self) -> None:
        taken = Environment.take("HOSPITAL_DB_URL, ABSENT ,", process(**HERE))
        assert (taken.allowed, taken.present) == ({"HOSPITAL_DB_URL", "ABSENT"}, ("HOSPITAL_DB_URL",))

    def test_what_was_taken_is_no_longer_handed_on(self) -> None:
        environ = process(**HERE)
        Environment.take("HOSPITAL_DB_URL", environ)
        assert environ.keys() == {b"TENANT_B_DB_URL", b"PATH", b"EMPTY"}

    def test_without_the_setting_nothing_may_be_read(self) -> None:
        environ = process(**HERE)
        assert Environment.take("", environ).allowed == NO_ENVIRONMENT.allowed == frozenset()
        assert environ == process(**HERE)

    @pytest.mark.parametrize(
        "name",
        ["PATH", "Path", "KEYFOB_GATEWAY_IDENTITY_DIR", "keyfob_x", "LD_PRELOAD", "HTTPS_PROXY", "PYTHONPATH", "ENV"],
    )
    def test_the_process_own_variables_end_the_start(self, name: str) -> None:
        with pytest.raises(Misconfigured, match=name):
            Environment.take(f"HOSPITAL_DB_URL,{name}", process(**HERE))

    @pytest.mark.parametrize("text", ["A=postgres://u:secret@h", "postgres://u:secret@h", "1A", "A B", "A\nB", "Ä"])
    def test_what_is_no_name_ends_the_start_and_is_not_quoted(self, text: str) -> None:
        with pytest.raises(Misconfigured) as refused:
            Environment.take(text, {})
        assert text not in str(refused.value)
        assert "secret" not in str(refused.value)

    def test_there_may_be_so_many(self) -> None:
        names = [f"V{number}" for number in range(MOST_VARIABLES + 1)]
        assert len(Environment.take(",".join(names[:-1]), {}).allowed) == MOST_VARIABLES
        with pytest.raises(Misconfigured):
            Environment.take(",".join(names), {})

    @settings(max_examples=examples(300))
    @given(name=st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True), value=st.binary(max_size=64))
    def test_a_value_arrives_byte_for_byte_or_the_name_is_refused(self, name: str, value: bytes) -> None:
        environ = {name.encode(): value}
        if is_reserved_variable(name):
            with pytest.raises(Misconfigured):
                Environment.take(name, environ)
            return
        taken = Environment.take(name, environ)
        if not value:
            assert taken.present == ()
            return
        assert taken.value(name).matches(value)


class TestValues:
    environment = Environment.take("HOSPITAL_DB_URL,ABSENT,EMPTY", process(**HERE))

    @pytest.mark.parametrize("name", ["TENANT_B_DB_URL", "PATH", "HOME", "KEYFOB_MODE", "hospital_db_url", ""])
    def test_a_name_outside_the_list_is_never_read(self, name: str) -> None:
        with pytest.raises(Unavailable, match="may not be read"):
            self.environment.value(name)

    @pytest.mark.parametrize("name", ["ABSENT", "EMPTY"])
    def test_what_is_not_there_or_empty_is_refused_without_naming_it(self, name: str) -> None:
        with pytest.raises(Unavailable, match="not set") as refused:
            self.environment.value(name)
        assert name not in refused.value.detail

    def test_each_holding_gets_a_copy_of_its_own(self) -> None:
        first = self.environment.value("HOSPITAL_DB_URL")
        first.wipe()
        assert self.environment.value("HOSPITAL_DB_URL").matches(b"postgres://here")

    def test_it_never_shows_a_value(self) -> None:
        assert "postgres" not in repr(self.environment)


@pytest.fixture
def installation() -> Installation:
    made = Installation()
    made.define("teller", teller(fields=("DB_URL", "API_KEY")))
    wanted: dict[str, Reference | Variable] = {
        "DB_URL": Variable("HOSPITAL_DB_URL"),
        "API_KEY": Reference("reference/key", b"key value"),
    }
    made.tokens[TOKEN] = Allowed("agent-a", {"hospital-a": wanted})
    return made


@asynccontextmanager
async def running(
    installation: Installation, names: str = "HOSPITAL_DB_URL", **variables: str
) -> AsyncIterator[Instance]:
    instance = installation.instance(Environment.take(names, process(**variables)))
    await instance.start()
    task = asyncio.create_task(instance.run())
    installation.tick()
    await until(lambda: instance.not_ready() is None)
    try:
        yield instance
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_variable_becomes_a_value_on_the_instance_and_only_there(installation: Installation) -> None:
    async with running(installation, HOSPITAL_DB_URL="postgres://here") as instance:
        holding = await instance.resolve(TOKEN, WANTED)
        assert holding.values["DB_URL"].matches(b"postgres://here")
        assert holding.values["API_KEY"].matches(b"key value")
        assert instance.usable(holding)
        await until(lambda: any(receipt.open_leases == 2 for receipt in installation.receipts))
    told = b"".join(message.value for message in installation.messages)
    assert b"postgres://here" not in told


async def test_the_same_answer_gives_each_instance_what_it_was_started_with(installation: Installation) -> None:
    for value in ("postgres://here", "postgres://there"):
        async with running(installation, HOSPITAL_DB_URL=value) as instance:
            holding = await instance.resolve(TOKEN, WANTED)
            assert holding.values["DB_URL"].matches(value.encode())


@pytest.mark.parametrize("names", ["", "OTHER", "HOSPITAL_DB_URLS"])
async def test_no_answer_opens_what_the_deployment_did_not_allow(installation: Installation, names: str) -> None:
    async with running(installation, names, HOSPITAL_DB_URL="postgres://here") as instance:
        with pytest.raises(Unavailable, match="may not be read"):
            await instance.resolve(TOKEN, WANTED)


async def test_leases_of_values_that_are_not_here_end_at_once_and_the_receipt_says_so(
    installation: Installation,
) -> None:
    async with running(installation) as instance:
        with pytest.raises(Unavailable, match="not set"):
            await instance.resolve(TOKEN, WANTED)
        assert instance.ledger.progress().open_leases == 0
        await until(lambda: any(receipt.ended for receipt in installation.receipts))
    ended = [end.why for receipt in installation.receipts for end in receipt.ended]
    assert ended == [LeaseEnd.SESSION, LeaseEnd.SESSION]
    assert [len(receipt.released) for receipt in installation.receipts if receipt.released] == [1], "the echo is told"


async def test_a_lease_on_a_variable_ends_when_the_variable_is_allowed_no_more(installation: Installation) -> None:
    async with running(installation, HOSPITAL_DB_URL="postgres://here") as instance:
        holding = await instance.resolve(TOKEN, WANTED)
        installation.say(revocation("variable/HOSPITAL_DB_URL", seq=installation.policy_seq + 1))
        await until(lambda: not instance.usable(holding))


async def test_receipts_say_which_allowed_names_are_there_and_no_other(installation: Installation) -> None:
    async with running(installation, "HOSPITAL_DB_URL,ABSENT", HOSPITAL_DB_URL="x", TENANT_B_DB_URL="y"):
        await until(lambda: installation.receipts)
    assert {receipt.variables for receipt in installation.receipts} == {("HOSPITAL_DB_URL",)}
