"""Assemblies: each a Model."""
