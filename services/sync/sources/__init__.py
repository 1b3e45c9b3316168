"""Readers of the places that hold secrets: names, versions and states, never a value. One provider a module."""
