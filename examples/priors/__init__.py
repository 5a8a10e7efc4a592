"""What a better prior than N(0, I) does for a VAE. `python -m examples.priors --help`."""
