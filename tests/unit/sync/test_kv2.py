"""A KV version 2 mount, read with few rights: what each answer means, and what is never asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.sync.domain.naming import LONGEST_PATH, MOST_KEYS
from services.sync.domain.observations import Denied, Found, Missing, Unreached, Unread
from services.sync.sources import kv2
from services.sync.sources.credentials import CredentialFiles
from services.sync.sources.kv2 import PAGE, Kv2Reader
from services.sync.sources.port import FolderDenied, Listed, Reached, Unsuitable
from shared.config import Mode
from shared.egress import Answer, NotReached
from shared.events.catalog import KvSource, ReferenceState
from tests.fakes.clock import FakeClock
from tests.fakes.kv_http import DENIED, NO_ROUTE, FakeKvHttp, answer, metadata
from tests.fakes.loopback import write_secret

ORIGIN = "https://vault.example:8200"
TOKEN = "s.hunter2"

Make = Callable[..., Kv2Reader]


@pytest.fixture
def vault() -> FakeKvHttp:
    return FakeKvHttp(names={"db": ["user", "password"]}, secrets={"db": metadata()})


@pytest.fixture
def make(vault: FakeKvHttp, tmp_path: Path) -> Make:
    def made(prefix: str = "", mount: str = "secret") -> Kv2Reader:
        write_secret(tmp_path / "main.json", json.dumps({"origin": ORIGIN, "token": TOKEN}))
        place = KvSource(origin=ORIGIN, mount=mount, prefix=prefix)
        credentials = CredentialFiles(tmp_path, mode=Mode.PRODUCTION)
        return Kv2Reader("main", place, egress=vault, credentials=credentials, mode=Mode.PRODUCTION)  # type: ignore[arg-type]

    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(kv2.time, "monotonic", clock)
    return clock


async def paths(reader: Kv2Reader) -> list[str]:
    return [entry.path async for entry in reader.entries() if isinstance(entry, Listed)]


async def test_a_look_asks_for_metadata_and_names_and_never_for_data(vault: FakeKvHttp, make: Make) -> None:
    seen = await make().read("db", keys=True)
    assert isinstance(seen, Found)
    assert (seen.version, seen.state, seen.keys) == (1, ReferenceState.ACTIVE, ("password", "user"))
    assert sorted(vault.asked) == ["secret/metadata/db", "secret/subkeys/db?depth=1"]
    assert vault.tokens == {TOKEN}


async def test_whatever_is_done_no_address_of_values_is_asked(vault: FakeKvHttp, make: Make) -> None:
    reader = make()
    await reader.check()
    await paths(reader)
    for keys in (True, False):
        await reader.read("db", keys=keys)
    assert vault.asked
    assert not [one for one in vault.asked if one.startswith("secret/data")]


async def test_a_write_between_the_two_questions_has_both_asked_again(vault: FakeKvHttp, make: Make) -> None:
    older = answer(200, {"data": {"subkeys": {"old": None}, "metadata": {"version": 6}}})
    vault.secrets["db"] = metadata(7)
    vault.said["secret/subkeys/db"] = [older]
    seen = await make().read("db", keys=True)
    assert isinstance(seen, Found)
    assert (seen.version, seen.keys) == (7, ("password", "user"))
    assert len(vault.asked) == 4


async def test_a_secret_that_changes_faster_than_it_is_read_is_not_a_source_that_is_away(
    vault: FakeKvHttp, make: Make
) -> None:
    older = answer(200, {"data": {"subkeys": {}, "metadata": {"version": 6}}})
    vault.said["secret/subkeys/db"] = [older] * 99
    seen = await make().read("db", keys=True)
    assert seen == Unread("db", "the secret changed faster than it could be read")


@pytest.mark.parametrize(
    "odd",
    [
        answer(200, {"data": metadata() | {"current_version": -1}}),
        answer(200, {"data": metadata() | {"current_version": 2**63}}),
        answer(200, {"data": metadata() | {"custom_metadata": {"owner": 7}}}),
        answer(200, {"data": metadata() | {"created_time": "yesterday"}}),
        answer(414, {"errors": ["too long"]}),
        answer(500, {"errors": ["internal error"]}),
        NotReached("the answer is longer than 1048576 bytes"),
    ],
    ids=["negative", "beyond a bigint", "metadata", "time", "414", "500", "too long"],
)
async def test_one_path_whose_answer_can_not_be_used_is_that_path_s_trouble(
    vault: FakeKvHttp, make: Make, odd: Answer | NotReached
) -> None:
    vault.said["secret/metadata/db"] = [odd]
    seen = await make().read("db", keys=False)
    assert isinstance(seen, Unread), seen
    assert "internal error" not in seen.why


@pytest.mark.parametrize("status", [429, 472, 500, 503])
async def test_no_answer_of_any_path_is_the_source_s_trouble(vault: FakeKvHttp, make: Make, status: int) -> None:
    reader = make()
    for address in ("secret/metadata/db", "secret/metadata/", "sys/internal/ui/mounts/secret"):
        vault.said[address] = [answer(status, {"errors": []})] * 2
    assert isinstance(await reader.read("db", keys=False), Unreached)


async def test_a_closed_path_is_denied_only_while_the_source_is_open(vault: FakeKvHttp, make: Make) -> None:
    vault.closed = {"secret/metadata/db"}
    assert await make().read("db", keys=True) == Denied("db")
    vault.closed = {"secret/"}
    assert await make().read("db", keys=True) == Unreached("our credential may not list this source")


async def test_what_is_not_there_is_missing(make: Make) -> None:
    assert await make().read("absent", keys=True) == Missing("absent")


@pytest.mark.parametrize(
    ("current", "state"),
    [
        ({"deletion_time": "2026-01-02T00:00:00Z"}, ReferenceState.PENDING_DELETION),
        ({"deletion_time": "2999-01-02T00:00:00Z"}, ReferenceState.ACTIVE),
        ({"destroyed": True}, ReferenceState.REMOVED),
        ({"destroyed": True, "deletion_time": "2026-01-02T00:00:00Z"}, ReferenceState.REMOVED),
    ],
)
async def test_the_state_is_that_of_the_current_version(
    vault: FakeKvHttp, make: Make, current: dict[str, Any], state: ReferenceState
) -> None:
    version = metadata()["versions"]["1"] | current
    vault.secrets["db"] = metadata() | {"versions": {"1": version}}
    seen = await make().read("db", keys=False)
    assert isinstance(seen, Found)
    assert seen.state is state


@pytest.mark.parametrize("versions", [None, {}])
async def test_a_secret_without_a_version_is_removed(
    vault: FakeKvHttp, make: Make, versions: dict[str, Any] | None
) -> None:
    vault.secrets["db"] = metadata() | {"versions": versions, "current_version": 0}
    seen = await make().read("db", keys=True)
    assert isinstance(seen, Found)
    assert seen.state is ReferenceState.REMOVED


async def test_words_of_a_source_are_cut_to_what_can_be_shown(vault: FakeKvHttp, make: Make) -> None:
    vault.secrets["db"] = metadata(custom_metadata={"owner": "Ada\x00\x1b[2J", "description": "x" * 5000, "else": "y"})
    seen = await make().read("db", keys=False)
    assert isinstance(seen, Found)
    assert (seen.owner, len(seen.description)) == ("Ada[2J", 2000)


async def test_names_that_we_may_not_see_are_not_asked_for_every_time(
    vault: FakeKvHttp, make: Make, clock: FakeClock
) -> None:
    vault.closed = {"secret/subkeys"}
    reader = make()
    for _ in range(3):
        seen = await reader.read("db", keys=True)
        assert isinstance(seen, Found)
        assert seen.keys is None
    assert sum(one.startswith("secret/subkeys") for one in vault.asked) == 1
    clock.advance(kv2.ASK_NAMES_AGAIN_S)
    vault.closed = set()
    seen = await reader.read("db", keys=True)
    assert isinstance(seen, Found)
    assert seen.keys == ("password", "user")


async def test_names_that_were_seen_once_are_always_asked_for(vault: FakeKvHttp, make: Make, clock: FakeClock) -> None:
    """One secret that is closed must not hide the names in all others for half a minute."""
    reader = make()
    await reader.read("db", keys=True)
    vault.said["secret/subkeys/db"] = [answer(403, DENIED)]
    await reader.read("db", keys=True)
    seen = await reader.read("db", keys=True)
    assert isinstance(seen, Found)
    assert seen.keys == ("password", "user")


async def test_names_that_can_not_be_kept_are_left_out(vault: FakeKvHttp, make: Make) -> None:
    vault.names["db"] = ["user", "", "a\x00b", "new\nline", "x" * (LONGEST_PATH + 1)]
    seen = await make().read("db", keys=True)
    assert isinstance(seen, Found)
    assert seen.keys == ("user",)


async def test_a_secret_of_very_many_names_is_one_thing(vault: FakeKvHttp, make: Make) -> None:
    """Each name is a reference, and all of them one commit that everybody waits for."""
    vault.names["db"] = [f"key-{number}" for number in range(MOST_KEYS)]
    seen = await make().read("db", keys=True)
    assert isinstance(seen, Found)
    assert seen.keys is not None
    vault.names["db"].append("one-more")
    seen = await make().read("db", keys=True)
    assert isinstance(seen, Found)
    assert seen.keys is None


async def test_folders_are_walked_and_pages_read_to_their_end(vault: FakeKvHttp, make: Make) -> None:
    wanted = [f"many/{number:04}" for number in range(PAGE + 3)] + ["a", "deep/er/b"]
    vault.secrets = {path: metadata() for path in wanted}
    assert sorted(await paths(make())) == sorted(wanted)


@pytest.mark.parametrize("count", [PAGE - 1, PAGE, PAGE + 1, 2 * PAGE])
async def test_a_page_that_is_just_full_is_followed_by_the_next(vault: FakeKvHttp, make: Make, count: int) -> None:
    vault.secrets = {f"{number:05}": metadata() for number in range(count)}
    assert len(await paths(make())) == count


async def test_a_prefix_is_listed_and_what_is_beside_it_is_not(vault: FakeKvHttp, make: Make) -> None:
    vault.secrets = {path: metadata() for path in ("ward/db", "ward/x/db", "wardrobe/db", "other")}
    assert sorted(await paths(make("ward"))) == ["ward/db", "ward/x/db"]


async def test_a_listing_that_tells_enough_needs_no_look_at_each_path(vault: FakeKvHttp, make: Make) -> None:
    vault.details = True
    vault.secrets = {"a": metadata(3), "b/c": metadata(4)}
    told = {entry.path: entry.found async for entry in make().entries() if isinstance(entry, Listed)}
    assert {path: found and found.version for path, found in told.items()} == {"a": 3, "b/c": 4}
    assert all(one.startswith("secret/detailed-metadata") for one in vault.asked)


async def test_a_listing_that_is_not_there_is_asked_for_again_only_after_a_while(
    vault: FakeKvHttp, make: Make, clock: FakeClock
) -> None:
    reader = make()
    vault.secrets = {"a": metadata(), "b/c": metadata()}
    for _ in range(3):
        await paths(reader)
    assert sum(one.startswith("secret/detailed-metadata") for one in vault.asked) == 1
    clock.advance(kv2.ASK_AGAIN_S)
    vault.details = True
    vault.asked.clear()
    await paths(reader)
    assert all(one.startswith("secret/detailed-metadata") for one in vault.asked)


async def test_a_listing_that_tells_too_much_gives_way_to_one_of_names(vault: FakeKvHttp, make: Make) -> None:
    """Long descriptions of a few secrets must not hide the whole folder."""
    vault.details, vault.longest = True, 2_000
    vault.secrets = {f"{number}": metadata(custom_metadata={"description": "x" * 500}) for number in range(9)}
    entries = [entry async for entry in make().entries()]
    assert [entry.path for entry in entries if isinstance(entry, Listed)] == [f"{number}" for number in range(9)]
    assert not [entry for entry in entries if isinstance(entry, Unreached)]


async def test_a_closed_folder_is_told_and_a_closed_root_is_no_answer(vault: FakeKvHttp, make: Make) -> None:
    vault.secrets = {"open": metadata(), "ward/db": metadata()}
    vault.closed = {"secret/metadata/ward/", "secret/detailed-metadata"}
    entries = [entry async for entry in make().entries()]
    assert entries == [Listed("open", None), FolderDenied("ward/")]
    vault.closed = {"secret/"}
    assert [entry async for entry in make().entries()] == [Unreached("our credential may not list this source")]


async def test_after_no_answer_nothing_more_is_listed(vault: FakeKvHttp, make: Make) -> None:
    vault.secrets = {"a/x": metadata(), "b/y": metadata()}
    vault.said["secret/metadata/a/"] = [NotReached("no connection")]
    assert [entry async for entry in make().entries()] == [Unreached("no connection")]


async def test_names_that_a_url_does_not_carry_are_left_out(vault: FakeKvHttp, make: Make) -> None:
    names = ["fine", "..", ".", "", "/", "a\x00b", "x" * (LONGEST_PATH + 1), "../", "./"]
    vault.said["secret/metadata/"] = [answer(200, {"data": {"keys": [*names, 7, None]}})]
    assert await paths(make()) == ["fine"]


async def test_a_list_that_leads_into_itself_ends(vault: FakeKvHttp, make: Make) -> None:
    endless = answer(200, {"data": {"keys": ["again/"]}})

    async def request(*_: object, **__: object) -> Answer:
        vault.asked.append("")
        return endless

    vault_like = make()
    vault_like._egress = type("Endless", (), {"request": staticmethod(request)})()  # type: ignore[assignment]
    assert await paths(vault_like) == []
    assert len(vault.asked) <= kv2.DEEPEST + 2


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ({"type": "kv", "options": {"version": "2"}}, Reached()),
        ({"type": "kv", "options": {"version": "1"}}, Unsuitable("secret is not a KV version 2 mount.")),
        ({"type": "kv", "options": None}, Unsuitable("secret is not a KV version 2 mount.")),
        ({"type": "transit"}, Unsuitable("secret is not a KV version 2 mount.")),
    ],
)
async def test_only_a_kv2_mount_is_suitable(
    vault: FakeKvHttp, make: Make, kind: dict[str, Any], outcome: object
) -> None:
    vault.kind = kind
    assert await make().check() == outcome


async def test_a_token_that_may_not_ask_what_a_mount_is_may_still_list_it(vault: FakeKvHttp, make: Make) -> None:
    vault.said["sys/internal/ui/mounts/secret"] = [answer(403, DENIED)]
    assert await make().check() == Reached()


async def test_an_empty_source_is_reached_and_a_missing_mount_is_not(vault: FakeKvHttp, make: Make) -> None:
    vault.secrets.clear()
    assert await make().check() == Reached()
    vault.said["secret/metadata/"] = [answer(404, NO_ROUTE)]
    assert await make().check() == Unreached("no handler for route")


async def test_without_a_credential_nothing_is_sent(vault: FakeKvHttp, make: Make, tmp_path: Path) -> None:
    reader = make()
    (tmp_path / "main.json").unlink()
    seen = await reader.read("db", keys=True)
    assert isinstance(seen, Unreached)
    assert "main.json" in seen.why
    assert vault.asked == []


async def test_paths_travel_as_they_are_called(vault: FakeKvHttp, make: Make) -> None:
    for path in ("Jürgen & Söhne/пароль", "what?/who#/100%/a=b&c", "a b/c+d/e%20f", "semi;colon,comma"):
        vault.secrets[path] = metadata(5)
        seen = await make().read(path, keys=False)
        assert isinstance(seen, Found), path
        assert (seen.path, seen.version) == (path, 5)


@pytest.mark.parametrize("data", [{}, {"keys": None}, {"keys": 1}, {"keys": "db"}, {"keys": {"db": 1}}])
async def test_an_answer_without_a_list_is_no_empty_source(make: Make, data: object) -> None:
    """Else whatever stands in front of a vault and answers 200 would take every reference for deleted."""
    reader = make()

    async def request(*_: object, **__: object) -> Answer:
        return Answer(200, {}, json.dumps({"data": data}).encode())

    reader._egress = type("Odd", (), {"request": staticmethod(request)})()  # type: ignore[assignment]
    assert [entry async for entry in reader.entries()] == [Unreached("the answer is not what KV version 2 answers")]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
plausible = st.fixed_dictionaries(
    {},
    optional={
        "data": json_values
        | st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(
                ("keys", "key_info", "subkeys", "metadata", "current_version", "versions", "created_time"), json_values
            ),
        ),
        "errors": json_values,
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(status=st.sampled_from([200, 404, 403, 500]), body=plausible | json_values | st.binary(max_size=20))
async def test_whatever_is_answered_is_an_outcome_and_never_a_failure(make: Make, status: int, body: object) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reader = make()

    async def request(*_: object, **__: object) -> Answer:
        return Answer(status, {}, content)

    reader._egress = type("Odd", (), {"request": staticmethod(request)})()  # type: ignore[assignment]
    assert not isinstance(await reader.read("db", keys=True), Found)
    assert await reader.check() is not None
    count = 0
    async for _ in reader.entries():
        count += 1
        if count > 200:
            break
