"""A hierarchy, importance weights and a flow against plain VAEs. `python -m examples.bounds --help`."""
