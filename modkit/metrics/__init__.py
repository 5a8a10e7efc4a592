"""Metrics: streaming, mergeable measures of samples, and the statistics that they keep."""
