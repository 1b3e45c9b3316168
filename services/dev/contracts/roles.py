"""Which service reads and writes which contracts: the table of the architecture, from which AsyncAPI is generated."""

from __future__ import annotations

from dataclasses import dataclass

from shared.events import access, alerts, audit, changes, custody, notices, receipts
from shared.events.contract import Contract
from shared.events.registry import CATALOG_RECORDS, POLICY_RECORDS

Contracts = tuple[type[Contract], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What one service reads from topics and writes to them."""

    summary: str
    reads: Contracts
    writes: Contracts


ROLES: dict[str, Role] = {
    "sync": Role(
        summary="Watches the sources and keeps the catalog: names, versions and states, never a value.",
        reads=(),
        writes=(*CATALOG_RECORDS, changes.VaultChange),
    ),
    "policy": Role(
        summary="Decides who may use what, signs it, and says what changed.",
        reads=CATALOG_RECORDS,
        writes=(*POLICY_RECORDS, changes.PolicyChange),
    ),
    "resolver": Role(
        summary="Resolves references for verified subjects on enrolled instances, and records each access.",
        # Notices and gateways' receipts: passed on for those that only speak HTTPS.
        reads=(*CATALOG_RECORDS, *POLICY_RECORDS, notices.Notice, notices.NoticeTick),
        writes=(
            access.AccessRecord,
            receipts.ResolverReceipt,
            receipts.GatewayReceipt,
            custody.KeyChange,
            custody.ValueChange,
        ),
    ),
    "notifier": Role(
        summary="Turns changes into notices, and receipts into convergence.",
        reads=(
            changes.VaultChange,
            changes.PolicyChange,
            custody.KeyChange,
            custody.ValueChange,
            *POLICY_RECORDS,
            receipts.GatewayReceipt,
            receipts.ResolverReceipt,
        ),
        writes=(notices.Notice, notices.NoticeTick, alerts.Alert),
    ),
    "audit": Role(
        summary="Numbers and keeps everything that happened, for people and for SIEMs.",
        reads=(
            access.AccessRecord,
            changes.VaultChange,
            changes.PolicyChange,
            custody.KeyChange,
            custody.ValueChange,
            receipts.GatewayReceipt,
            receipts.ResolverReceipt,
            alerts.Alert,
        ),
        writes=(audit.AuditRecord,),
    ),
    "gateway": Role(
        summary="Holds leased values for MCP servers, ends them when told to, and says so.",
        reads=(notices.Notice, notices.NoticeTick),
        writes=(receipts.GatewayReceipt,),
    ),
}
