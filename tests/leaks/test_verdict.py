"""Where a value may be: with the one server that it is for, in the one gateway that it was given to, in its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.dev.stack.layout import Layout, write_private
from shared.topics import ACCESS
from tests.leaks.canaries import Canaries, Canary, Finding, needles
from tests.leaks.places import Sight
from tests.leaks.planting import KINDS, Planted
from tests.leaks.processes import Seen
from tests.leaks.verdict import Court, may_have, not_private
from tests.leaks.ward import CARELESS, MAPPED, OWN, VAULT

CANARIES = Canaries()
MINE = CANARIES.new("mine", servers=[OWN])
HERE = CANARIES.new("of here", servers=[MAPPED], gateways=["gateway-1"])


def seen(*words: str, **variables: str) -> Seen:
    lines = (f"{name}={value}" for name, value in variables.items())
    return Seen(1, "\0".join((*words, "")).encode(), "\0".join((*lines, "")).encode())


def server(name: str) -> Seen:
    return seen("/usr/bin/python", str(CARELESS), f"--serves={name}")


def gateway(name: str) -> Seen:
    return seen("/usr/bin/python", "-m", "services", "serve", "gateway", KEYFOB_KAFKA_MEMBER=name)


@pytest.mark.parametrize(
    ("canary", "where", "may"),
    [
        (MINE, server(OWN), True),
        (MINE, server(VAULT), False),
        (MINE, gateway("gateway-1"), False),
        (HERE, server(MAPPED), True),
        (HERE, gateway("gateway-1"), True),
        (HERE, gateway("gateway-2"), False),
        (HERE, seen("/usr/bin/python", "-m", "services", "serve", "resolver"), False),
        (HERE, seen("sh", "-c", f"echo --serves={MAPPED}"), False),
    ],
)
def test_a_process_may_have_what_was_given_to_it(canary: Canary, where: Seen, may: bool) -> None:  # noqa: FBT001
    assert may_have(canary, where) is may


def court(tmp_path: Path) -> Court:
    return Court(Planted(), CANARIES, Layout(tmp_path))


def test_the_arguments_of_a_process_may_have_nothing(tmp_path: Path) -> None:
    looking = court(tmp_path)
    looking.search_process(seen("/usr/bin/python", str(CARELESS), f"--serves={OWN}", MINE.text))
    assert {one.label for one in looking.verdict.leaks} == {MINE.label}


def test_a_file_may_hold_its_own_secret_and_no_other(tmp_path: Path) -> None:
    known = Canaries()
    own, other = known.new("secret database-audit"), known.new("secret database-policy")
    path = tmp_path / "secrets" / "database-audit"
    write_private(path, own.text)
    looking = Court(Planted(), known, Layout(tmp_path))
    looking.search(Sight("state", str(path), own.secret))
    assert (looking.verdict.leaks, looking.verdict.meant) == ([], {own.label})
    looking.search(Sight("state", str(path), other.secret))
    looking.search(Sight("state", f"{path}.copy", own.secret))
    assert {one.label for one in looking.verdict.leaks} == {own.label, other.label}


def test_a_name_that_was_asked_for_is_on_record_and_nowhere_else(tmp_path: Path) -> None:
    known = Canaries()
    asked = known.new("asked for", recorded=True)
    looking = Court(Planted(), known, Layout(tmp_path))
    looking.search(Sight("topic", f"topic {ACCESS}", asked.secret))
    assert looking.verdict.leaks == []
    looking.search(Sight("log", "gateway-1.log", asked.secret))
    assert looking.verdict.leaks


def test_a_file_that_others_may_read_is_named(tmp_path: Path) -> None:
    write_private(tmp_path / "secrets" / "closed", "x")
    write_private(tmp_path / "secrets" / "open", "x")
    (tmp_path / "secrets" / "open").chmod(0o640)
    complaints = list(not_private(Layout(tmp_path)))
    assert str(tmp_path / "secrets" / "open") in complaints
    assert str(tmp_path / "secrets" / "closed") not in complaints


def test_what_was_planted_and_not_found_is_named_form_by_form(tmp_path: Path) -> None:
    made = Planted()
    assert len(made.missing([])) == made.forms()
    looking = Court(made, CANARIES, Layout(tmp_path))
    for kind in KINDS:
        looking.search(Sight(KINDS[kind], "here", made.lines(kind)))
    assert made.missing(looking.verdict.planted) == []


def test_what_was_planted_counts_only_where_it_is(tmp_path: Path) -> None:
    made = Planted()
    label, form = next(iter(needles(made.canaries.known).values()))
    elsewhere = Finding(label, form, "somewhere else")
    assert len(made.missing([("log of somebody", elsewhere)])) == made.forms()
    assert court(tmp_path).verdict.planted == []
