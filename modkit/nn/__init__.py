"""Networks only: encoders, decoders, denoisers, generators and critics, built from a few blocks.

Import what you need from its own module (`from modkit.nn.unet import UNet`): nothing is imported here.
"""
