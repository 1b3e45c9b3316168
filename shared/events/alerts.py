"""The `alerts` topic: what people should know before it bites."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from shared import topics
from shared.events.contract import Contract, Id, Instant


class Severity(StrEnum):
    """How soon somebody should look."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Alert(Contract):
    """One alert; the same cause gives the same id, so that repeating it changes nothing."""

    TYPE: ClassVar[str] = "keyfob.alert.v1"
    TOPIC: ClassVar[str] = topics.ALERTS

    id: Id
    kind: str
    """Stable words: `reference-unusable`, `record-unreadable`, `receipt-forged`, …"""
    severity: Severity
    summary: str
    concerns: tuple[Id, ...] = ()
    at: Instant
