"""A diffusion decoder against one that minimises squared errors. `python -m examples.decoders --help`."""
