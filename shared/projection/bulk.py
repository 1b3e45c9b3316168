"""Loading many records at once without the garbage collector walking over them again and again.

Records and snapshots hold no reference cycles, so counting references frees them; but CPython's collector scans them
all with every full collection, which takes about half of a cold start and stops a running service for as long. What
was loaded in bulk is therefore moved out of its sight (`gc.freeze`). The price: a reference cycle that became garbage
just before stays in memory for the life of the process.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

BULK_MESSAGES = 1_000
"""A batch of at least this many is a bulk load."""


@contextmanager
def collector_aside() -> Iterator[None]:
    """Keep the collector out during a bulk load, and what it made out of the collector's sight afterwards."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
