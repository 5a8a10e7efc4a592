"""A bottleneck of one's own, latents on the unit sphere, under a diffusion prior: no package, no registration."""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import modkit
from modkit import Latents, Rng, Spec, Step, TensorType, use


class Sphere(nn.Module):
    """Vectors of unit length; what a prior makes is projected back."""

    def __init__(self, h: TensorType, *, channels: int = 16) -> None:
        super().__init__()
        self.latents = {"continuous": TensorType((channels,))}
        self.project = nn.Linear(h.numel, channels)

    def forward(self, h: Tensor, step: Step | None) -> Latents:
        return Latents({"continuous": F.normalize(self.project(h.flatten(1)))}, kl=None, losses={})

    def to_z(self, name: str, latent: Tensor) -> Tensor:
        return F.normalize(latent)

    def sample(self, num: int, rng: Rng) -> Tensor:
        return F.normalize(rng.normal("prior", torch.empty(num, self.project.out_features)))


AUTOENCODER = use("autoencoder", encoder="mlp", bottleneck=use(Sphere), decoder="mlp")
SPEC = Spec(use("latent", autoencoder=AUTOENCODER, prior=use("diffusion", network="mlp")), "sphere", use("digits"))

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, help="caps every stage")
    parser.add_argument("--out", default="runs/sphere")
    given = parser.parse_args()
    run = modkit.train(SPEC, given.out, steps=given.steps, overwrite=True)
    print(given.out, tuple(modkit.load(run, spec=SPEC).sample(64, seed=0).shape))
