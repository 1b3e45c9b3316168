"""Holding a secret value in memory, as far as Python can.

Python can't promise to wipe memory. `SecretBytes` keeps the bytes in one `bytearray`, overwrites it on
release, and refuses every ordinary way in which a value ends up in a log, a file or another object. Copies that
other code makes on its way (a parsed response, an environment string) are that code's to keep short-lived.
"""

from __future__ import annotations

import ctypes
import hmac
import resource
import sys
from typing import Final, NoReturn, Self

SHOWN: Final = "<SecretBytes>"
"""What a repr shows: a constant, since even the length is a hint."""

_PR_SET_DUMPABLE: Final = 4
"""prctl(2)."""


class SecretBytes:
    """A value that can be used, compared in constant time and wiped, and in no other way looked at.

    `repr` is a constant, so that a traceback or a logger that meets one neither leaks nor breaks. `str`,
    `format`, `==`, `hash`, copying and pickling raise `TypeError`: there each use would be a mistake.
    """

    __slots__ = ("__weakref__", "_bytes")

    def __init__(self, value: bytes | bytearray | memoryview) -> None:
        """Copy `value` in; the caller still owns, and should drop or wipe, what it passed."""
        self._bytes: bytearray | None = bytearray(value)

    @classmethod
    def taking(cls, value: bytearray) -> Self:
        """Take `value` over without a copy: the caller must not touch it again."""
        secret = cls.__new__(cls)
        secret._bytes = value  # noqa: SLF001 - its own class
        return secret

    def reveal(self) -> _Revealed:
        """`with secret.reveal() as view:` gives a read-only memoryview that ends with the block.

        `ValueError` if the secret was wiped. Bytes made from the view are out of this class's hands.
        """
        if self._bytes is None:
            message = "the secret was wiped"
            raise ValueError(message)
        return _Revealed(self._bytes)

    def matches(self, other: SecretBytes | bytes) -> bool:
        """Compare in constant time (for equal lengths); a wiped one matches nothing."""
        mine = self._bytes
        theirs = other._bytes if isinstance(other, SecretBytes) else other  # noqa: SLF001 - the same class
        return mine is not None and theirs is not None and hmac.compare_digest(mine, theirs)

    def wipe(self) -> None:
        """Overwrite and let go; doing it again changes nothing. Views that are still open read zeros."""
        held, self._bytes = self._bytes, None
        if held is not None:
            # In place, at its own length: a new object would leave the old bytes where they are.
            held[:] = bytes(len(held))

    @property
    def wiped(self) -> bool:
        """Whether the value is gone."""
        return self._bytes is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        self.wipe()

    def __del__(self) -> None:
        # An instance whose __init__ raised has no bytes.
        if hasattr(self, "_bytes"):
            self.wipe()

    def __repr__(self) -> str:
        return SHOWN

    def __str__(self) -> NoReturn:  # noqa: PLE0307 - it never returns
        _refuse("turned into text")

    def __format__(self, _spec: str) -> NoReturn:
        _refuse("formatted")

    def __bool__(self) -> NoReturn:  # noqa: PLE0304 - it never returns
        _refuse("tested for truth")

    def __eq__(self, _other: object) -> NoReturn:
        _refuse("compared with ==; use matches()")

    def __hash__(self) -> NoReturn:  # noqa: PLE0309 - it never returns
        _refuse("hashed")

    def __copy__(self) -> NoReturn:
        _refuse("copied")

    def __deepcopy__(self, _memo: object) -> NoReturn:
        _refuse("copied")

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        _refuse("pickled")


class _Revealed:
    """The open view of a secret; released when its block ends, however it ends."""

    __slots__ = ("_view",)

    def __init__(self, held: bytearray) -> None:
        self._view = memoryview(held).toreadonly()

    def __enter__(self) -> memoryview:
        return self._view

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        self._view.release()


def _refuse(what: str) -> NoReturn:
    message = f"a secret is not {what}"
    raise TypeError(message)


def disable_core_dumps() -> bool:
    """Keep this process's memory out of core files; whether everything that this system offers was done.

    `RLIMIT_CORE` becomes 0; on Linux the process also stops being dumpable (prctl(2), `PR_SET_DUMPABLE`),
    which hides `/proc/PID/environ`, `maps` and `mem` from other processes of the same user as well. Call it
    first thing: a child that execs is dumpable again, and inherits only the limit.
    """
    # The hard limit too, so that nothing in this process can raise it again.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)) == 0
