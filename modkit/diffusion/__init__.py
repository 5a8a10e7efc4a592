"""The algebra of diffusion: the Gaussian forward process, schedules, parametrizations, time sampling, loss weights."""
