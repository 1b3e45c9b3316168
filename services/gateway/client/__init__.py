"""What any gateway needs to use Keyfob: enrol, resolve, obey notices, prove it with receipts.

Nothing here knows MCP. `instance.Instance` puts the parts together; another gateway starts one, calls `resolve`,
and ends the leases that it is told to end.
"""
