r"""Redaction: a server's credentials do not come back in what it says.

The promise, exactly: a value of at least 8 characters, the password of a URL (never its user name or host) and the
JSON leaves that a definition marks are replaced by `[redacted]` in results, errors and stderr, where they stand as

- themselves, in hex (lower or upper case), in base64 or base64url at any of the three alignments;
- each of these as such, percent-encoded, or escaped once or twice in JSON as real serialisers do it (`writings`);
- in one stream, however it is cut into chunks.

Nothing else is promised: a server that wants to give a value away can write it backwards. Data that holds none of
this passes byte for byte. Where it can be read in two ways, one of which is the value, it is taken for the value:
`\\nowhere-to-go` in a JSON string is a backslash and `nowhere-to-go`, or a line break for who parses it again.

`upstreams.Redaction` is what the gateway needs; `values` says what of a credential is secret, `writings` how it may be
written, `anchors`, `sieve` and `searching` how it is found, `streams` what happens then.
"""

from services.gateway.redaction.streams import REPLACEMENT, Redactor
from services.gateway.redaction.upstreams import Guess, NoGuess, Redaction
from services.gateway.redaction.values import SHORTEST, Secret

__all__ = ["REPLACEMENT", "SHORTEST", "Guess", "NoGuess", "Redaction", "Redactor", "Secret"]
