"""A learned noise schedule against the fixed one that it starts as. `python -m examples.learned_noise --help`."""
