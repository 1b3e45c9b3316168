"""What an instance was told is compared with what is on record; rubbish proves nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.audit.domain.echoes import compare, contradiction, echoes_of, loss
from shared.events.receipts import GatewayReceipt
from tests.unit.audit.accesses import AT, STREAM

HASH = "ab" * 32


def receipt(*released: str) -> GatewayReceipt:
    return GatewayReceipt(
        instance_id="instance/1",
        run="run/1",
        n=0,
        applied_offset=0,
        dropped_offset=0,
        open_leases=0,
        released=released,
        at=AT,
    )


def test_an_echo_names_a_record() -> None:
    (echo,) = echoes_of(receipt(f"{STREAM}/17/{HASH}"))
    assert (echo.stream, echo.n, echo.hash, echo.instance_id) == (STREAM, 17, HASH, "instance/1")
    assert echo.key == f"{STREAM}/17"


def test_an_echo_is_right_missing_or_contradicted() -> None:
    echoes = echoes_of(receipt(f"{STREAM}/1/{HASH}", f"{STREAM}/2/{HASH}", f"{STREAM}/3/{HASH}"))
    compared = compare(echoes, {f"{STREAM}/1": HASH, f"{STREAM}/2": "cd" * 32})
    assert [echo.n for echo in compared.contradicted] == [2]
    assert [echo.n for echo in compared.missing] == [3]
    assert contradiction(echoes[1]).reason == "stream-contradicted"
    assert loss(echoes[2]).reason == "stream-tail-lost"
    assert loss(echoes[2]).cause == loss(echoes[2]).cause != contradiction(echoes[2]).cause


def test_a_record_from_before_hashes_were_kept_contradicts_nothing() -> None:
    (echo,) = echoes_of(receipt(f"{STREAM}/1/{HASH}"))
    compared = compare([echo], {echo.key: ""})
    assert (compared.contradicted, compared.missing) == ((), ())


@given(st.text(max_size=300) | st.from_regex(r"[a-z/]{0,20}/\d{1,30}/[0-9a-f]{60,66}", fullmatch=True))
def test_any_text_is_an_echo_that_a_database_can_hold_or_none(text: str) -> None:
    for echo in echoes_of(receipt(text)):
        assert 0 <= echo.n < 2**63
        assert len(echo.hash) == 64
        assert "\0" not in echo.stream
        assert loss(echo).numbered("log/main", 1).cause_n == echo.n
