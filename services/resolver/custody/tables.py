"""The tables of the resolver; only custody has any.

generations    installation keys in the order in which they became current, each with its recovery blob
rotations      how far bringing all values to a generation has come
local_values   what people entered: the seal, which never changes, and its key's wrap, which a rotation replaces
replicas       which keys each replica finds in its directory, and when it last said so
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, DateTime, Integer, LargeBinary, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY

METADATA: Final = MetaData()
_TIME: Final = DateTime(timezone=True)

generations: Final = Table(
    "generations",
    METADATA,
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("key_id", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("recovery", LargeBinary, nullable=True),
    Column("since", _TIME, nullable=False),
    Column("made_by_idp", Text, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("retired_at", _TIME, nullable=True),
)

rotations: Final = Table(
    "rotations",
    METADATA,
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("total", BigInteger, nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("damaged", BigInteger, nullable=False),
    Column("started_at", _TIME, nullable=False),
    Column("finished_at", _TIME, nullable=True),
)

local_values: Final = Table(
    "local_values",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("owner_kind", Text, nullable=False),
    Column("owner", Text, nullable=False, comment="as the seal's context names it"),
    Column("server_id", Text, nullable=False),
    Column("field", Text, nullable=False),
    Column("version", BigInteger, nullable=False, comment="raised by each replacement, deletion included"),
    Column("sealed", LargeBinary, nullable=True),
    Column("wrap", LargeBinary, nullable=True),
    Column("kek_id", Text, nullable=True),
    Column("set_at", _TIME, nullable=False),
    Column("set_by_idp", Text, nullable=False),
    Column("set_by", Text, nullable=False),
    Column("last_used_at", _TIME, nullable=True),
    Column("deleted_at", _TIME, nullable=True),
)

replicas: Final = Table(
    "replicas",
    METADATA,
    Column("replica_id", Text, primary_key=True),
    Column("key_ids", ARRAY(Text), nullable=False),
    Column("seen_at", _TIME, nullable=False),
)
