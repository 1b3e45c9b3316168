"""What a server in a sandbox sees: the longest rule counts, and what it may write to is only its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.gateway import views
from services.gateway.views import (
    Empty,
    Keep,
    Mount,
    Nothing,
    Own,
    View,
    make_rooms,
    options_at,
    read_mounts,
    steps_of,
    writable_mounts,
)
from tests.thoroughness import examples

PATHS = [Path(*parts) for parts in (("a",), ("b",), ("a", "a"), ("a", "b"), ("a", "a", "b"), ("b", "a", "b"))]


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of our own: its shared places and its resolver's file."""
    for name in ("tmp", "run/resolve", "etc", "dev", "srv"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "run" / "resolve" / "stub.conf").touch()
    (tmp_path / "etc" / "resolv.conf").symlink_to(tmp_path / "run" / "resolve" / "stub.conf")
    monkeypatch.setattr(views, "SHARED", (tmp_path / "tmp", tmp_path / "var-tmp"))
    monkeypatch.setattr(views, "SOCKETS", tmp_path / "run")
    monkeypatch.setattr(views, "DEVICES", tmp_path / "dev")
    monkeypatch.setattr(views, "PROCESSES", tmp_path / "proc")
    monkeypatch.setattr(views, "RESOLVER", tmp_path / "etc" / "resolv.conf")
    return tmp_path


def made(path: Path, *, file: bool = False) -> Path:
    (path.parent if file else path).mkdir(parents=True, exist_ok=True)
    if file:
        path.touch()
    return path


def test_what_is_hidden_is_empty_and_what_is_shown_inside_is_there(machine: Path) -> None:
    hidden, inside, key = made(machine / "srv/h"), made(machine / "srv/h/tools"), made(machine / "srv/key", file=True)
    own = make_rooms(made(machine / "srv/h/own"))
    steps = steps_of(View(hidden=(hidden, key), shown=(inside,)), own)
    assert {Empty(hidden), Nothing(key), Keep(inside, inside)} <= set(steps)
    assert Keep(own.work, own.work, writable=True) in steps
    assert steps.index(Empty(hidden)) < steps.index(Keep(inside, inside)), "outermost first"


def test_what_is_inside_what_is_shown_can_be_hidden_again(machine: Path) -> None:
    hidden, shown, deep = (made(machine / f"srv/h{more}") for more in ("", "/shown", "/shown/deep"))
    view = View(hidden=(hidden, deep), shown=(shown,))
    assert [view.shows(path) for path in (hidden, shown, deep, machine / "etc")] == [False, True, False, True]


def test_who_hides_and_shows_the_same_hides_it(machine: Path) -> None:
    assert not View(hidden=(made(machine / "srv/h"),), shown=(machine / "srv/h",)).shows(machine / "srv/h")


def test_what_is_not_there_needs_no_step(machine: Path) -> None:
    absent = machine / "absent"
    assert absent not in {step.path for step in steps_of(View(hidden=(absent,)), Own(machine / "srv"))}


def test_what_is_shown_and_visible_anyway_needs_no_step(machine: Path) -> None:
    there = machine / "srv"
    assert there not in {step.path for step in steps_of(View(shown=(there,)), Own(machine / "etc"))}


def test_it_has_temporary_places_of_its_own(machine: Path) -> None:
    own = make_rooms(made(machine / "tmp/own"))
    kept = {step.path: step for step in steps_of(View(), own) if isinstance(step, Keep)}
    assert kept[machine / "tmp"] == Keep(own.temporary, machine / "tmp", writable=True)
    assert kept[own.work].writable, "although it lies within them"
    assert [step.path for step in kept.values() if step.writable] == [machine / "tmp", own.work]


def test_values_in_files_can_only_be_read(machine: Path) -> None:
    files = made(machine / "dev/shm/values")
    assert Keep(files, files) in steps_of(View(hidden=(files.parent,)), Own(machine / "srv", files))


def test_sockets_of_others_are_out_of_reach_and_names_are_still_resolved(machine: Path) -> None:
    view = View()
    assert not view.shows(machine / "run")
    assert view.shows(machine / "etc/resolv.conf"), "also what the link leads to"


def test_where_the_resolvers_file_has_no_directory_of_its_own_only_the_file_is_shown(machine: Path) -> None:
    (machine / "etc/resolv.conf").unlink()
    (machine / "etc/resolv.conf").symlink_to(made(machine / "run/resolv.conf", file=True))
    made(machine / "run/secret", file=True)
    assert View().shows(machine / "etc/resolv.conf")
    assert not View().shows(machine / "run/secret")


def test_a_link_into_what_is_hidden_does_not_show_it(machine: Path) -> None:
    hidden = made(machine / "srv/h")
    (machine / "srv/link").symlink_to(hidden)
    assert not View(hidden=(hidden,)).shows(machine / "srv/link")
    assert not View(hidden=(machine / "srv/link",)).shows(hidden), "and a rule may be a link"


def test_devices_are_hidden_whatever_is_said(machine: Path) -> None:
    assert not View().shows(made(machine / "dev/disk", file=True))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for path in PATHS:
        (root / path).mkdir(parents=True, exist_ok=True)
    return root


@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hidden=st.sets(st.sampled_from(PATHS)), shown=st.sets(st.sampled_from(PATHS)), asked=st.sampled_from(PATHS))
def test_the_longest_rule_counts(tree: Path, hidden: set[Path], shown: set[Path], asked: Path) -> None:
    view = View(hidden=tuple(tree / one for one in hidden), shown=tuple(tree / one for one in shown))
    rules = [one for one in hidden | shown if asked.is_relative_to(one)]
    longest = max(rules, key=lambda one: len(one.parts), default=None)
    # What is shown without anything hidden around it is nothing special.
    assert view.shows(tree / asked) == (longest is None or longest not in hidden)


LINES = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:5 / {srv} rw,nosuid,nodev,noatime,idmapped - xfs none rw
24 22 0:6 / {srv}/sub\\040dir rw,noexec - ext4 none rw
25 22 0:7 / {etc} ro,nosuid - ext4 none rw
26 22 0:8 / {proc} rw - proc none rw
27 22 0:9 / {dev} rw - devtmpfs none rw
28 22 0:9 / {srv}/absent rw - ext4 none rw
29 22 0:9 / {srv}/hidden rw - ext4 none rw
30 22 0:9 / {srv}/hidden/shown rw - ext4 none rw
"""


@pytest.fixture
def mounts(machine: Path) -> tuple[Mount, ...]:
    for name in ("srv/sub dir", "proc", "srv/hidden/shown"):
        made(machine / name)
    table = machine / "mountinfo"
    table.write_text(LINES.format(**{name: machine / name for name in ("srv", "etc", "proc", "dev")}))
    return read_mounts(table)


def test_every_mount_that_a_server_finds_is_closed_for_writing(machine: Path, mounts: tuple[Mount, ...]) -> None:
    view = View(hidden=(machine / "srv/hidden",), shown=(machine / "srv/hidden/shown",))
    assert [mount.point for mount in writable_mounts(mounts, view)] == [
        Path("/"),
        machine / "srv",
        machine / "srv/sub dir",
    ]


def test_flags_that_nobody_may_take_away_stay(machine: Path, mounts: tuple[Mount, ...]) -> None:
    assert options_at(machine / "srv/x", mounts) == ("nosuid", "nodev", "noatime")
    assert options_at(machine / "srv/sub dir/x", mounts) == ("noexec",)
    assert options_at(machine / "other", mounts) == ("relatime",)
    assert options_at(Path("/x"), ()) == ()


def test_what_is_mounted_over_it_counts() -> None:
    mounts = (Mount(Path("/"), writable=True, flags=("nosuid",)), Mount(Path("/"), writable=False, flags=("noexec",)))
    assert options_at(Path("/x"), mounts) == ("noexec",)
    assert writable_mounts(mounts, View()) == ()


def test_rooms_are_private(machine: Path) -> None:
    own = make_rooms(machine / "srv")
    assert {path.stat().st_mode & 0o777 for path in (own.work, own.temporary, own.before)} == {0o700}
