"""The `keyfob` command for administrators: the services' HTTP APIs, as tables for people and JSON for scripts."""
