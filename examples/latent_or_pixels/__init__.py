"""Latent diffusion beside diffusion in pixels, on the same budget. `python -m examples.latent_or_pixels --help`."""
