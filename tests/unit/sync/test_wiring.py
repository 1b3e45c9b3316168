"""Sync put together: what its key must be, where the feed's entries go, and what rows it believes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from services.sync.app import Settings, _hearer, _signing_key, openapi
from services.sync.domain.feed import Ignored, PathTouched, SourceTouched
from services.sync.settings import SyncSettings
from services.sync.store.outages import own_errors
from services.sync.store.signatures import Seal
from shared.config import CommonSettings, Misconfigured
from shared.crypto.signing import SigningKey
from shared.errors import Conflict, SignatureInvalid, Unavailable
from shared.events.catalog import ReferenceRecord, SourceRecord
from tests.fakes.sync_books import a_source


def settings(file: Path, **common: Any) -> Settings:
    return Settings(common=CommonSettings(**common), sync=SyncSettings(signing_key_file=file))


def test_the_key_must_be_the_one_that_everybody_pins(tmp_path: Path) -> None:
    """Else everything would start, and nobody would believe a record."""
    key, file = SigningKey.generate(), tmp_path / "sync.key"
    key.save(file)
    assert _signing_key(settings(file)).key_id == key.key_id
    assert _signing_key(settings(file, catalog_key=key.verify_key.to_base64())).key_id == key.key_id
    other = SigningKey.generate().verify_key.to_base64()
    with pytest.raises(Misconfigured, match="KEYFOB_CATALOG_KEY") as failure:
        _signing_key(settings(file, catalog_key=other))
    assert key.key_id in str(failure.value)


def test_a_key_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"absent\.key"):
        _signing_key(settings(tmp_path / "absent.key"))


class FakeKeepers:
    """One keeper, of `main`, that remembers what it heard."""

    def __init__(self) -> None:
        self.source = type("Source", (), {"record": a_source("main")})()
        self.heard: list[tuple[object, str | None]] = []

    def named(self, name: str) -> FakeKeepers | None:
        return self if name == "main" else None

    def hear(self, hint: object, *, traceparent: str | None) -> None:
        self.heard.append((hint, traceparent))


def entry(path: str, operation: str = "update") -> dict[str, Any]:
    return {"type": "response", "request": {"operation": operation, "path": path}}


def test_an_entry_of_the_feed_reaches_the_keeper_of_its_source() -> None:
    keepers = FakeKeepers()
    hear = _hearer(keepers)  # type: ignore[arg-type]
    hear("main", entry("secret/data/db"), "00-1-2-01")
    hear("main", entry("sys/policies/acl/x"), None)
    hear("main", entry("secret/data/db", "read"), None)
    hear("absent", entry("secret/data/db"), None)
    assert keepers.heard == [(PathTouched("db"), "00-1-2-01"), (SourceTouched(), None), (Ignored(), None)]


def test_the_published_description_has_the_feed_and_needs_nothing_to_run() -> None:
    paths = openapi()["paths"]
    assert "post" in paths["/v1/feeds/{source_name}"]
    assert "/v1/sources" in paths


def test_more_looks_than_connections_are_refused_at_start() -> None:
    """Each look holds one: with too few, all would wait for each other and for none to come."""
    SyncSettings(looks=10, surveys=4, database_pool=17).check()
    with pytest.raises(Misconfigured, match="KEYFOB_SYNC_DATABASE_POOL"):
        SyncSettings(looks=10, surveys=4, database_pool=16).check()
    SyncSettings().check()


def test_a_record_is_opened_only_as_what_it_was_signed_as() -> None:
    seal, record = Seal(SigningKey.generate()), a_source()
    signed = seal.sign(record)
    assert seal.open(SourceRecord, record.id, signed.payload, signed.signature) == record
    wrong: list[tuple[Seal, type[Any], str, bytes, bytes]] = [
        (Seal(SigningKey.generate()), SourceRecord, record.id, signed.payload, signed.signature),
        (seal, ReferenceRecord, record.id, signed.payload, signed.signature),
        (seal, SourceRecord, "source/other", signed.payload, signed.signature),
        (seal, SourceRecord, record.id, signed.payload + b" ", signed.signature),
        (seal, SourceRecord, record.id, signed.payload, b"\0" * 64),
        (seal, SourceRecord, record.id, signed.payload, b""),
    ]
    for one, model, record_id, payload, signature in wrong:
        with pytest.raises(SignatureInvalid):
            one.open(model, record_id, payload, signature)


def test_a_signature_goes_out_with_the_bytes_it_is_of_and_with_no_others() -> None:
    seal, record = Seal(SigningKey.generate()), a_source()
    signed = seal.sign(record)
    give = signed.signer()
    names = {"topic": record.TOPIC, "type_": record.TYPE, "key": record.id}
    assert give(**names, payload=signed.payload) == (signed.key_id, signed.signature)
    with pytest.raises(ValueError, match="not what was signed"):
        give(**names, payload=signed.payload + b" ")


class UniqueViolation(Exception):
    """As the driver words it: with the row."""


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (DBAPIError("INSERT 'hunter2'", {"name": "hunter2"}, UniqueViolation("(name)=(hunter2)")), "UniqueViolation"),
        (PoolTimeout("QueuePool limit of size 20 hunter2"), "TimeoutError"),
        (SQLAlchemyError("hunter2"), "SQLAlchemyError"),
        (ConnectionRefusedError("hunter2"), "ConnectionRefusedError"),
    ],
)
def test_a_database_s_trouble_is_named_by_its_kind_and_quotes_nothing(error: Exception, says: str) -> None:
    with pytest.raises(Unavailable, match=says) as failure, own_errors():
        raise error
    assert "hunter2" not in failure.value.detail
    assert failure.value.__cause__ is None


@pytest.mark.parametrize("error", [Conflict("taken"), TypeError("a mistake"), SignatureInvalid()])
def test_what_is_no_trouble_of_the_database_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as failure, own_errors():
        raise error
    assert failure.value is error
