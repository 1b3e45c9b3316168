"""For development, demonstration and tests: the embedded platform, the stack on it, the contracts on disk."""
