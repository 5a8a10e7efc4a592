"""Recipes of diffusion on Fashion-MNIST, in pixels and in latents, beside diffusers' U-Net in a plain loop."""
