"""A secret can be used and wiped, and in no other way looked at."""

import copy
import json
import logging
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable

import orjson
import pytest
import structlog
from pydantic import BaseModel, ConfigDict

from shared.crypto import SecretBytes
from shared.crypto.secret import SHOWN

VALUE = b"postgres://u:hunter2hunter2@h/db"
LEAKS = ("hunter2", "aHVudGVyM", VALUE.hex())


def holds_no_value(text: str) -> bool:
    return not any(leak in text for leak in LEAKS)


@pytest.fixture
def secret() -> SecretBytes:
    return SecretBytes(VALUE)


def test_the_value_is_seen_only_inside_a_block(secret: SecretBytes) -> None:
    with secret.reveal() as view:
        assert bytes(view) == VALUE
        assert view.readonly
    with pytest.raises(ValueError, match="released"):
        bytes(view)


def test_a_view_ends_with_its_block_even_if_that_fails(secret: SecretBytes) -> None:
    kept: list[memoryview] = []

    def fail() -> None:
        with secret.reveal() as view:
            kept.append(view)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with pytest.raises(ValueError, match="released"):
        kept[0].tobytes()


@pytest.mark.parametrize(
    "look",
    [
        str,
        bytes,
        list,
        len,
        hash,
        bool,
        iter,
        memoryview,
        vars,
        "{}".format,
        "{0:>4}".format,
        lambda secret: f"{secret}",
        lambda secret: "%s" % secret,  # noqa: UP031
        lambda secret: "x" + secret,
        lambda secret: secret[0],
        lambda secret: secret == VALUE,
        lambda secret: secret != VALUE,
        lambda secret: secret in {VALUE, b""},
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        json.dumps,
        orjson.dumps,
    ],
)
def test_every_other_look_is_refused_and_the_refusal_tells_nothing(
    secret: SecretBytes, look: Callable[[object], object]
) -> None:
    with pytest.raises(TypeError) as refused:
        look(secret)
    assert holds_no_value("".join(traceback.format_exception(refused.value)))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_pickle_protocol_takes_it(secret: SecretBytes, protocol: int) -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps({"inside": secret}, protocol)


def test_its_repr_is_a_constant_that_does_not_even_tell_the_length(secret: SecretBytes) -> None:
    assert repr(secret) == repr(SecretBytes(b"")) == SHOWN
    assert f"{[secret]}" == f"[{SHOWN}]"


class _Holder(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    value: SecretBytes


def test_a_model_that_holds_one_does_not_print_it(secret: SecretBytes) -> None:
    holder = _Holder(value=secret)
    assert holds_no_value(repr(holder))
    assert holds_no_value(str(holder))
    with pytest.raises(Exception, match="serialize"):
        holder.model_dump_json()


def test_structured_logs_do_not_print_it(secret: SecretBytes) -> None:
    for render in (
        structlog.processors.JSONRenderer(),
        structlog.processors.KeyValueRenderer(),
        structlog.processors.LogfmtRenderer(),
    ):
        try:
            line = render(logging.getLogger(), "info", {"event": "resolved", "value": secret})
        except TypeError as refused:
            line = str(refused)
        assert holds_no_value(str(line))


def test_a_traceback_that_shows_locals_does_not_print_it(secret: SecretBytes) -> None:
    try:
        _ = 1 // 0
    except ZeroDivisionError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert SHOWN in shown
    assert holds_no_value(shown.replace(repr(VALUE), ""))


def test_wiping_overwrites_the_very_bytes() -> None:
    held = bytearray(VALUE)
    secret = SecretBytes.taking(held)
    secret.wipe()
    assert held == bytes(len(VALUE))
    assert secret.wiped


def test_a_wiped_secret_gives_nothing_and_may_be_wiped_again(secret: SecretBytes) -> None:
    secret.wipe()
    secret.wipe()
    with pytest.raises(ValueError, match="wiped"):
        secret.reveal()
    assert not secret.matches(VALUE)
    assert not secret.matches(SecretBytes(VALUE))


def test_a_view_that_is_still_open_reads_zeros_after_wiping(secret: SecretBytes) -> None:
    with secret.reveal() as view:
        secret.wipe()
        assert bytes(view) == bytes(len(VALUE))


def test_leaving_its_block_wipes_it() -> None:
    with SecretBytes(VALUE) as secret:
        assert not secret.wiped
    assert secret.wiped


def test_letting_go_wipes_it() -> None:
    held = bytearray(VALUE)
    secret = SecretBytes.taking(held)
    del secret
    assert held == bytes(len(VALUE))


def test_the_callers_own_bytes_are_left_alone() -> None:
    mine = bytearray(VALUE)
    SecretBytes(mine).wipe()
    assert mine == VALUE


def test_matching_compares_with_bytes_and_with_secrets(secret: SecretBytes) -> None:
    assert secret.matches(VALUE)
    assert secret.matches(SecretBytes(VALUE))
    assert not secret.matches(VALUE + b"x")
    assert not secret.matches(b"")


_CORE_DUMPS = """
import ctypes, resource, sys
from shared.crypto import disable_core_dumps
assert disable_core_dumps() == sys.platform.startswith("linux")
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
assert not sys.platform.startswith("linux") or ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0  # PR_GET_DUMPABLE
"""


def test_core_dumps_are_off_after_asking_for_it() -> None:
    # In a process of its own: the setting can't be taken back.
    subprocess.run([sys.executable, "-c", _CORE_DUMPS], check=True, timeout=30)
