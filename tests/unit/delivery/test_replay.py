"""No id is admitted twice while it could still be valid, and memory stays bounded."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from shared.delivery import ReplayWindow
from tests.thoroughness import examples

LIFETIME = 30


def test_an_id_is_admitted_once() -> None:
    seen = ReplayWindow()
    assert seen.admit("i", "a", expires_at=130, now=100)
    assert not seen.admit("i", "a", expires_at=130, now=101)
    assert seen.admit("i", "b", expires_at=130, now=101)


def test_instances_do_not_share_ids() -> None:
    seen = ReplayWindow()
    assert seen.admit("i", "a", expires_at=130, now=100)
    assert seen.admit("j", "a", expires_at=130, now=100)


def test_expired_ids_are_forgotten() -> None:
    seen = ReplayWindow()
    for number in range(100):
        seen.admit("i", str(number), expires_at=130, now=100)
    assert seen.admit("i", "later", expires_at=160, now=130)
    assert len(seen) == 1


def test_the_room_of_a_silent_instance_is_given_back() -> None:
    seen = ReplayWindow()
    for number in range(100):
        seen.admit(f"instance/{number}", "a", expires_at=130, now=100)
    seen.admit("i", "a", expires_at=230, now=200)
    assert len(seen._instances) == 1


def test_a_flood_forgets_the_oldest_but_does_not_let_them_in_again() -> None:
    seen = ReplayWindow(per_instance=3)
    for number in range(10):
        assert seen.admit("i", str(number), expires_at=130 + number, now=100)
    assert len(seen) == 3
    assert not any(seen.admit("i", str(number), expires_at=130 + number, now=100) for number in range(10))
    assert seen.admit("i", "new", expires_at=140, now=100)


def test_one_instances_flood_takes_nothing_from_another() -> None:
    seen = ReplayWindow(per_instance=3)
    seen.admit("quiet", "a", expires_at=130, now=100)
    for number in range(100):
        seen.admit("loud", str(number), expires_at=150, now=100)
    assert not seen.admit("quiet", "a", expires_at=130, now=100)
    assert seen.admit("quiet", "b", expires_at=130, now=100)


class Replays(RuleBasedStateMachine):
    """Against a model that never forgets: nothing is admitted twice before it expires, in any order of events."""

    @initialize()
    def start(self) -> None:
        self.window, self.now, self.admitted = ReplayWindow(per_instance=4), 1000.0, dict[tuple[str, str], int]()

    @rule(seconds=st.floats(0, 70))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(instance=st.sampled_from("ab"), name=st.sampled_from("0123456789"), lifetime=st.integers(1, 60))
    def something_arrives(self, instance: str, name: str, lifetime: int) -> None:
        expires_at = self.admitted.get((instance, name), 0)
        if expires_at <= self.now:
            expires_at = int(self.now) + lifetime + 1
        admitted = self.window.admit(instance, name, expires_at=expires_at, now=self.now)
        if admitted:
            assert self.admitted.get((instance, name), 0) <= self.now
            self.admitted[instance, name] = expires_at

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.window) <= 2 * 4


TestReplays = Replays.TestCase
TestReplays.settings = settings(max_examples=examples(60), stateful_step_count=40, deadline=None)
