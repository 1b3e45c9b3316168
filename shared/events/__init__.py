"""The contracts: pydantic models from which the published JSON Schemas are generated."""
