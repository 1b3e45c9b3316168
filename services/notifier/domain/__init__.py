"""The notifier's decisions: pure, without clock, broker or database."""
