"""How many modes GANs find, on Gaussians and on stacked digits. `python -m examples.modes --help`."""
