"""The event bus: CloudEvents messages, connections with safe defaults, readers of whole topics, effects."""
