"""Evaluation: samples, data and models scored by metrics, and the report of it."""
