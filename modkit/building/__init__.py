"""Building: from a spec, or from Python objects, to a checked model; and back from a run."""
