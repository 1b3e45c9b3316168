"""The resolver: the only service that may open values. Decides, records, reads, seals."""
