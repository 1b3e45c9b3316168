"""What the definition of an MCP server may not say: names that change how a process runs, and values in the open."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from services.policy.domain.names import check_line, check_text
from shared.errors import BadRequest
from shared.events.definitions import HttpServer, StdioServer
from shared.variables import is_reserved_variable

_NOT_AS_FIELDS: Final = frozenset(
    {"HOME", "SHELL", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "TERMINFO"}
)
"""An administrator may set these in the open; that a value from a secret manager becomes one is never right."""
_HEADERS: Final = frozenset(
    {
        "host", "connection", "content-length", "content-type", "transfer-encoding", "te", "trailer", "upgrade",
        "keep-alive", "expect", "accept", "accept-encoding", "forwarded", "via", "origin", "traceparent", "tracestate",
        "mcp-session-id", "mcp-protocol-version", "last-event-id", "keyfob-assertion",
    }
)  # fmt: skip
_HEADER_PREFIXES: Final = ("proxy-", "x-forwarded-", "sec-")
LONGEST_TEXT: Final = 4096
MOST_FIELDS: Final = 64
MOST_ARGUMENTS: Final = 256


def is_reserved_header(header: str) -> bool:
    """Whether a header belongs to the transport, so that no credential can go there."""
    lower = header.lower()
    return lower in _HEADERS or lower.startswith(_HEADER_PREFIXES)


def check_definition(definition: StdioServer | HttpServer, *, allowed: frozenset[str] = frozenset()) -> None:
    """Refuse a definition with a sentence that says what to do instead.

    `allowed` are reserved variables that this installation lets servers have, by name.
    """
    if len(definition.fields) > MOST_FIELDS:
        raise BadRequest(f"A definition may have {MOST_FIELDS} fields.")
    names = [field.name for field in definition.fields]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadRequest(f"The field {twice[0]} is there twice: give each field a name of its own.")
    # Before anything is parsed: URL parsers drop control characters, and would check another text than is kept.
    for place, text in _texts(definition):
        check_text(text, of=place, limit=LONGEST_TEXT)
    for field in definition.fields:
        check_text(field.description, of=f"description of {field.name}")
    match definition:
        case StdioServer():
            _check_stdio(definition, allowed)
        case HttpServer():
            _check_http(definition)
    _check_placeholders(definition, names)


def _check_stdio(definition: StdioServer, allowed: frozenset[str]) -> None:
    fields = [field.name for field in definition.fields]
    for name in sorted({*definition.environment, *fields} - allowed):
        # Plain variables too: an administrator of servers must not become one of the gateway's process.
        if is_reserved_variable(name) or (name in fields and name.upper() in _NOT_AS_FIELDS):
            raise BadRequest(
                f"The variable {name} changes how a process runs and is reserved: give the server another one, or "
                "have it allowed by name (KEYFOB_POLICY_ALLOWED_VARIABLES)."
            )
    if both := sorted(set(fields) & definition.environment.keys()):
        raise BadRequest(f"{both[0]} is a field and a plain variable: keep the field, whose value Keyfob brings.")
    if len(definition.args) > MOST_ARGUMENTS:
        raise BadRequest(f"A definition may have {MOST_ARGUMENTS} arguments.")


def _check_http(definition: HttpServer) -> None:
    try:
        parts = urlsplit(definition.url)
        host = parts.hostname or ""
        # urlsplit() finds a bad port only when it is asked for the port.
        _ = parts.port
    except ValueError:
        raise BadRequest("The URL can't be read: write it as https://host/path.") from None
    check_line(definition.url, of="URL", limit=LONGEST_TEXT)
    if not host or parts.username is not None or parts.fragment:
        raise BadRequest("The URL needs a host, and no user, password or fragment: declare a field for a credential.")
    if parts.scheme != "https" and not _is_loopback(host):
        raise BadRequest("The URL must be https: credentials travel with every request.")
    # Header names have no case (RFC 9110): `Host` and `host` are one.
    headers = [field.header.lower() for field in definition.fields]
    if reserved := [header for header in headers if is_reserved_header(header)]:
        raise BadRequest(f"The header {reserved[0]} belongs to the transport: put the credential into another one.")
    if len(set(headers)) < len(headers):
        raise BadRequest("Two fields go into the same header: give each one of its own.")


def _check_placeholders(definition: StdioServer | HttpServer, names: list[str]) -> None:
    """Values never become arguments: `/proc/PID/cmdline` is open to every user of the machine."""
    if not names:
        return
    # Longest first, so that DB_URL_RO is not taken for DB_URL with something behind it.
    either = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    pattern = re.compile(rf"(?:\$\{{?|\{{\{{?\s*|%|<)(?P<name>{either})(?![A-Za-z0-9_])")
    for place, text in _texts(definition):
        if found := pattern.search(text):
            raise BadRequest(
                f"The {place} refers to the field {found['name']}. Arguments, plain variables and URLs can be read by "
                "others, so values never go there: let the server read the "
                + (f"variable {found['name']} itself." if isinstance(definition, StdioServer) else "header itself.")
            )


def _texts(definition: StdioServer | HttpServer) -> Iterator[tuple[str, str]]:
    """What a definition says about how to run or call the server, with the name of each place."""
    match definition:
        case StdioServer():
            yield "command", definition.command
            yield from ((f"argument {number}", text) for number, text in enumerate(definition.args, 1))
            yield from ((f"variable {name}", text) for name, text in definition.environment.items())
        case HttpServer():
            yield "URL", definition.url


def destination_of(definition: StdioServer | HttpServer) -> str | None:
    """The host that an HTTP server's credentials go to, in lower case; None for a child process."""
    return urlsplit(definition.url).hostname if isinstance(definition, HttpServer) else None


def field_names(definition: StdioServer | HttpServer) -> frozenset[str]:
    """The names of its fields."""
    return frozenset(field.name for field in definition.fields)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
