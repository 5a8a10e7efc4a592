"""How much of a Pareto front searches find. `python -m examples.search_front --help`."""
