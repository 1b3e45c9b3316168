"""Projections: a topic of state as an immutable snapshot in memory, whole commits only, provably current."""
