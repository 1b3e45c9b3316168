"""What the resolver knows, and what follows from it: immutable snapshots and pure decisions."""
