"""Specs: reading, writing and overriding the description of a system."""
