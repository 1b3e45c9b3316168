"""Pure rules of policy: what may stand together, what falls together, and who could use what."""
