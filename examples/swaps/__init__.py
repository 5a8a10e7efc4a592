"""The swap matrix of quality: every part in every slot, trained equally long. `python -m examples.swaps --help`."""
