"""Evaluation: samples, data and models are scored by metrics, and the scores are reported."""
