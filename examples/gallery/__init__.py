"""The gallery: every example trained in full, with pictures and scores. `python -m examples.gallery --help`."""
