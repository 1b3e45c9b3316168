"""What becomes a record, what is missing from a stream, who holds what: pure, without transport or database."""
