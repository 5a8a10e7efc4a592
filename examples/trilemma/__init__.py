"""The trilemma study: VAE, GAN, DDPM, VQ-VAE, VQGAN, LDM and DDGAN on the same data, of a like size, in the same time.

`plan` says what is trained, drawn and measured, `study` does it, `claims` holds what is said of the families against
the figures, and `report` writes them down.
"""
