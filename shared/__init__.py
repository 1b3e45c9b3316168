"""What every service needs and no service owns: contracts, topics, the bus, the outbox, cryptography, errors."""
