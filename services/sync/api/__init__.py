"""HTTP in, decision, HTTP out: the change feed and what administrators ask for."""
