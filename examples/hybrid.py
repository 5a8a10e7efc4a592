"""A hybrid that nobody has named: a GAN, kept smooth by R1, in the space of a vector-quantised autoencoder."""

import argparse

import modkit
from modkit import Spec, use

SPEC = Spec(
    name="hybrid",
    data=use("digits", size=16),
    model=use(
        "latent",
        autoencoder=use(
            "autoencoder",
            encoder=use("conv", channels=[16, 32]),
            bottleneck=use("vq", num_codes=128, channels=4),
            decoder=use("conv", channels=[32, 16]),
        ),
        at="continuous",  # the generator makes vectors, and decoding takes the nearest codes
        prior=use("gan", generator="mlp", discriminator="mlp", regularizers={"r1": use("r1", gamma=1.0)}),
    ),
    train={
        "stages": [
            {"players": ["autoencoder/*"], "steps": 600, "ema": 0.99},
            {"players": ["prior/*"], "steps": 4000, "ema": 0.999},
        ],
        "players": {"prior/*": {"optimizer": use("adam", lr=5e-4, betas=[0.0, 0.99])}},
    },
)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, help="caps every stage")
    parser.add_argument("--out", default="runs/hybrid")
    given = parser.parse_args()
    run = modkit.train(SPEC, given.out, steps=given.steps, overwrite=True)
    x = modkit.load(run).sample(64, seed=0)
    print(f"{given.out}: samples {tuple(x.shape)} of mean {x.mean():.2f} and std {x.std():.2f}")
