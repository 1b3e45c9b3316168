"""All SQL of sync. Statements name their columns; only `transactions` opens, commits and undoes."""
