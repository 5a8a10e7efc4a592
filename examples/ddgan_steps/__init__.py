"""Denoising diffusion GANs of 1, 2, 4 and 8 steps, and DDPM. `python -m examples.ddgan_steps --help`."""
