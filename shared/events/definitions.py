"""The definition of an MCP server: what runs or is called, and where its credentials go.

Bindings pin the digest of a definition, so that whoever edits a command does not inherit the secrets.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag

FieldName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$")]

# Closed, unlike other contracts: what a reader ignored would be missing from the digest that bindings pin.
_CLOSED = ConfigDict(frozen=True, extra="forbid")


class EnvironmentField(BaseModel):
    """A credential that the child process receives as environment variable `name`."""

    model_config = _CLOSED

    inject: Literal["environment"] = "environment"
    name: FieldName
    description: str = ""


class FileField(BaseModel):
    """A credential that the child process finds in a file, whose path is in environment variable `name`.

    The file is in memory, in a directory of the child's own, and can only be read (mode 0400).
    """

    model_config = _CLOSED

    inject: Literal["file"]
    name: FieldName
    description: str = ""


def _inject(field: object) -> object:
    """Tell which kind `field` is. What does not say goes into the environment, as before there was another."""
    if isinstance(field, dict):
        return field.get("inject", "environment")
    return getattr(field, "inject", None)


StdioField = Annotated[
    Annotated[EnvironmentField, Tag("environment")] | Annotated[FileField, Tag("file")], Discriminator(_inject)
]


class HeaderField(BaseModel):
    """A credential that goes into HTTP header `header` of each request, after `prefix` (as in `Bearer `)."""

    model_config = _CLOSED

    inject: Literal["header"] = "header"
    name: FieldName
    header: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9-]+$")]
    prefix: str = ""
    description: str = ""


class StdioServer(BaseModel):
    """An MCP server that a gateway starts as its child: nothing but `environment` and the fields reach it."""

    model_config = _CLOSED

    transport: Literal["stdio"] = "stdio"
    command: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    args: tuple[str, ...] = ()
    environment: dict[FieldName, str] = Field(default_factory=dict)
    """Plain, public variables. A credential never stands here."""
    fields: tuple[StdioField, ...] = ()


class HttpServer(BaseModel):
    """An MCP server that is called over streamable HTTP."""

    model_config = _CLOSED

    transport: Literal["http"] = "http"
    url: Annotated[str, StringConstraints(min_length=1, max_length=2048, pattern=r"^https?://")]
    fields: tuple[HeaderField, ...] = ()


Definition = Annotated[StdioServer | HttpServer, Field(discriminator="transport")]


def definition_digest(definition: StdioServer | HttpServer) -> str:
    """SHA-256 in hex over the RFC 8785 form of a definition: what a binding pins."""
    # Defaults included: a definition that spells them out is the same one.
    return hashlib.sha256(rfc8785.dumps(definition.model_dump(mode="json"))).hexdigest()
