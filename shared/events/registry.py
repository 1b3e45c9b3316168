"""Every contract that crosses a topic, once: what schema generation, consumers and tests enumerate."""

from __future__ import annotations

from shared.events import access, alerts, audit, catalog, changes, custody, notices, policy, receipts
from shared.events.contract import Contract, StateRecord

CATALOG_RECORDS: tuple[type[StateRecord], ...] = (catalog.SourceRecord, catalog.ReferenceRecord)
POLICY_RECORDS: tuple[type[StateRecord], ...] = (
    policy.IdpRecord,
    policy.ProfileRecord,
    policy.MappingRecord,
    policy.ServerRecord,
    policy.GrantRecord,
    policy.BindingRecord,
    policy.VariableRecord,
    policy.ChoiceRecord,
    policy.InstanceRecord,
    policy.TickRecord,
)
CONTRACTS: tuple[type[Contract], ...] = (
    *CATALOG_RECORDS,
    *POLICY_RECORDS,
    changes.VaultChange,
    changes.PolicyChange,
    custody.KeyChange,
    custody.ValueChange,
    access.AccessRecord,
    notices.Notice,
    notices.NoticeTick,
    receipts.GatewayReceipt,
    receipts.ResolverReceipt,
    alerts.Alert,
    audit.AuditRecord,
)


def by_type(contracts: tuple[type[StateRecord], ...]) -> dict[str, type[StateRecord]]:
    """CloudEvents `type` → model, for the records of one topic of state."""
    return {contract.TYPE: contract for contract in contracts}
