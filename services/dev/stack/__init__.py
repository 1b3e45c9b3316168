"""The whole of Keyfob on one machine: the embedded platform and every service as a process of its own."""

from services.dev.stack.stack import SOURCE, Stack

__all__ = ["SOURCE", "Stack"]
