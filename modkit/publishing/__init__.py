"""Publishing: exporting runs, importing weights and writing model cards."""
