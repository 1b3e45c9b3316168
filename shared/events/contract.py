"""The base of every model that crosses a topic.

Readers ignore fields they do not know, so that a newer writer never breaks an older reader; writers are the
models themselves, so nothing undeclared is ever sent. The CloudEvents `type` and the topic are class facts.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

Id = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._:/-]+$")]
"""An opaque id such as `grant/0f8c…`: it means nothing to whoever reads the bus."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
"""A name that people gave. Never on topics that gateways read."""

LARGEST: Final = 2**63 - 1
"""What a bigint holds: a reader whose database refuses a number would stumble over it again at each start."""

Count = Annotated[int, Field(ge=0, le=LARGEST)]
"""A number of things, or a number that counts from nought."""

Ordinal = Annotated[int, Field(ge=1, le=LARGEST)]
"""A number that counts from one."""

Seq = Count
"""A dense commit sequence of one service: sync's for the catalog, policy's for assignments."""

Instant = AwareDatetime


class Contract(BaseModel):
    """One message on a topic, by its published schema."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_bytes="base64", val_json_bytes="base64")

    TYPE: ClassVar[str]
    """CloudEvents `type`, version included: `keyfob.policy.grant.v1`."""

    TOPIC: ClassVar[str]
    """The topic that carries it."""

    def to_json(self) -> bytes:
        """The payload as it goes on the wire: UTF-8 JSON without nulls for absent fields."""
        return self.model_dump_json(exclude_none=True).encode()


class StateRecord(Contract):
    """A record of a topic of state: the whole of one entity after one commit.

    `seq` is the commit of the writing service that produced it, `revision` counts this entity's own changes.
    Deleting is a record with `state: deleted`: never a Kafka null, which would skip the signature and the order.
    """

    id: Id
    seq: Seq
    revision: Ordinal
    deleted: bool = False
