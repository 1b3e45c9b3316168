"""Custody: values that Keyfob keeps itself, sealed, and the installation keys that they are sealed under.

`shelf` key files, `standing` what this replica can do now, `store` all SQL, `keys` changing keys and `rewrapping`
bringing rows to the new one, `key_routes` their HTTP. References need none of it: whatever is missing or away here,
they resolve.
"""
