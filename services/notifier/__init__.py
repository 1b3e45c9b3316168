"""Turns changes into notices for gateways, and receipts into the proof that everybody acted."""
