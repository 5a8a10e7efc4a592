"""What β and its rivals do to a latent, on digits and on sprites. `python -m examples.beta_vae --help`."""
