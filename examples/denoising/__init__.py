"""Autoencoders that remove noise and fill in what is hidden. `python -m examples.denoising --help`."""
