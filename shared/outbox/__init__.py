"""The transactional outbox: state and events leave a service in the order of its commits, each exactly once."""
