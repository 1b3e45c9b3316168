"""How many examples a property test tries: a share of what KEYFOB_THOROUGH=1 tries, so that the suite stays quick."""

import os
from typing import Final

THOROUGH: Final = os.environ.get("KEYFOB_THOROUGH") == "1"
_SHARE: Final = 1.0 if THOROUGH else 0.2
_FEWEST: Final = 15


def examples(thorough: int) -> int:
    """The number for this run; `thorough` is the number with KEYFOB_THOROUGH=1."""
    return max(min(thorough, _FEWEST), int(thorough * _SHARE))
