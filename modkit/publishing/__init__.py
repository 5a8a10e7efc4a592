"""Publishing: exporting a run, importing weights, and model cards."""
