"""Pure decisions of sync: what an observation means, how references are called, which feed entries matter."""
