"""Every error that crosses a boundary inside Keyfob.

Each carries a stable `kind` (machines) and a `detail` that is safe to show to whoever asked (people):
never a value, never a token, never unfiltered remote text. Only the HTTP edge turns them into problem
documents (`shared.problems`).

    KeyfobError
    ├── Rejected                 the caller's fault, asking again unchanged will not help
    │   ├── BadRequest           400  malformed input
    │   ├── TooLarge             413  input beyond a stated limit
    │   ├── Unauthenticated      401  nobody we know
    │   │   ├── TokenInvalid          the subject's token
    │   │   └── AssertionInvalid      the instance's assertion
    │   ├── Forbidden            403  known, but this needs another role or instance
    │   ├── NotAvailable         404  absent or not yours: deliberately indistinguishable
    │   ├── ChoiceNeeded         409  several answers are allowed; names what to choose from
    │   └── Conflict             409  the state moved on, or the name is taken
    ├── Unavailable              503  our side is not able to answer safely now; carries `retry_after_s`
    │   ├── NotFresh                  this replica cannot prove that its state is current
    │   ├── RecordFailed              the access record could not be made durable: no record, no value
    │   └── SourceUnavailable         the secret manager did not answer, or refused us
    └── Untrusted                     bytes that do not verify; never shown to callers in detail
        ├── SignatureInvalid
        └── SealInvalid
"""

from __future__ import annotations

from typing import ClassVar

REMOTE_TEXT_LIMIT = 200
"""Characters of a remote system's words that may reach a log line."""


def cut(text: object, limit: int = REMOTE_TEXT_LIMIT) -> str:
    """One printable line of at most `limit` characters from text that somebody else wrote."""
    # Cut before anything walks over it: what a remote system says may be a whole page.
    line = " ".join(str(text)[: limit * 4].split())
    printable = "".join(character if character.isprintable() else "?" for character in line)
    return printable if len(printable) <= limit else printable[: limit - 1] + "…"


class KeyfobError(Exception):
    """Root of the tree: a stable kind and a detail that is safe to show."""

    kind: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something failed on our side"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title


class Rejected(KeyfobError):
    """The request cannot be served as it is; repeating it changes nothing."""

    kind = "rejected"
    status = 400
    title = "The request was rejected"


class BadRequest(Rejected):
    """Raised when input is malformed."""

    kind = "bad-request"
    title = "The request is malformed"


class TooLarge(Rejected):
    """Raised when input exceeds a stated limit."""

    kind = "too-large"
    status = 413
    title = "The request is too large"


class Unauthenticated(Rejected):
    """Raised when a request proves no identity that we know."""

    kind = "unauthenticated"
    status = 401
    title = "Authentication failed"


class TokenInvalid(Unauthenticated):
    """Raised when the subject's token does not verify; the detail names the failed check, never the token."""

    kind = "token-invalid"
    title = "The access token is not valid"


class AssertionInvalid(Unauthenticated):
    """Raised when the instance's assertion does not verify."""

    kind = "assertion-invalid"
    title = "The instance assertion is not valid"


class Forbidden(Rejected):
    """Raised when a known caller lacks the role, or an instance may not run a server."""

    kind = "forbidden"
    status = 403
    title = "Not allowed"


class NotAvailable(Rejected):
    """Raised for what is absent and for what is somebody else's: the two answers are byte for byte the same."""

    kind = "not-available"
    status = 404
    title = "Not available"

    def __init__(self) -> None:
        # No words of the caller's: whatever they said about what exists would be a hint.
        super().__init__("There is nothing by that name for you.")


class ChoiceNeeded(Rejected):
    """Raised when a subject's profiles allow several answers: `choices` are the names to choose from."""

    kind = "choice-needed"
    status = 409
    title = "Choose one"

    def __init__(self, detail: str, choices: tuple[str, ...]) -> None:
        super().__init__(detail)
        self.choices = choices


class Conflict(Rejected):
    """Raised when a name is taken or a revision moved on."""

    kind = "conflict"
    status = 409
    title = "Conflict"


class Unavailable(KeyfobError):
    """Raised when a safe answer is impossible now; nothing was released. `retry_after_s` is in seconds."""

    kind = "unavailable"
    status = 503
    title = "Not able to answer now"

    def __init__(self, detail: str = "", *, retry_after_s: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class NotFresh(Unavailable):
    """Raised when this replica cannot prove that what it knows is current."""

    kind = "not-fresh"
    title = "State may be out of date; refusing"


class RecordFailed(Unavailable):
    """Raised when the access record did not become durable in time: no record, no value."""

    kind = "record-failed"
    title = "The access could not be recorded; refusing"


class SourceUnavailable(Unavailable):
    """Raised when the secret manager could not be read."""

    kind = "source-unavailable"
    title = "The secret manager did not answer"


class Untrusted(KeyfobError):
    """Raised for bytes that do not verify."""

    kind = "untrusted"
    title = "Something did not verify"


class SignatureInvalid(Untrusted):
    """Raised when a signature does not belong to these bytes and this key."""

    kind = "signature-invalid"


class SealInvalid(Untrusted):
    """Raised when sealed bytes do not open; the reason is always the same."""

    kind = "seal-invalid"
