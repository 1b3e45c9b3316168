"""Generates what is published in `schemas/` from the models, and checks that the two agree."""
