"""What trained Models' latents hold: classes in a VAE's, and in a GAN's its own samples; --full trains the examples."""

from pathlib import Path

import pytest
import torch

import modkit
from modkit import Spec, use
from modkit.building.session import load_run
from modkit.data.splits import read_samples
from modkit.features.classifier import Classifier
from modkit.latent_space import average_classes, encode_split, find_space, project, read_classes
from modkit.rng import Rng
from tests.play import spec

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = use("mlp", width=128, depth=1)
VAE = use("autoencoder", encoder=SMALL, decoder=SMALL, bottleneck=use("gaussian", channels=16), likelihood="gaussian")
GAN = use("gan", generator=SMALL, discriminator=SMALL, z_dim=10, regularizers={"r1": "r1"})
QUICK = {
    "vae": spec(VAE, steps=250, batch_size=128, optimizer=use("adamw", lr=3e-3)),
    "dcgan": spec(GAN, steps=100, batch_size=64),
}


def train(name, scale, folder):
    playing = QUICK[name] if scale == "quick" else Spec.from_yaml((EXAMPLES / f"{name}.yaml").read_text())
    run = modkit.train(playing.with_value("train.device", "cpu"), folder / "run")
    loaded = load_run(run, needs=("data",))
    return find_space(loaded.model), loaded.data


scales = pytest.mark.parametrize("scale", ["quick", pytest.param("example", marks=pytest.mark.full)])


@pytest.mark.wide
@scales
def test_decoded_means_of_classes_are_read_as_their_class(scale, tmp_path):
    space, data = train("vae", scale, tmp_path)
    found = encode_split(space, data, split="train")
    means = average_classes(found.latents, found.fields["labels"])
    read = read_classes(space, torch.stack([*means.values()]), Classifier(data.x, weights="digits"))
    assert list(means) == [*range(10)]
    assert int((read == torch.arange(10)).sum()) >= 9


@scales
def test_projections_of_own_samples_are_nearer_to_them_than_the_nearest_training_picture(scale, tmp_path):
    space, data = train("dcgan", scale, tmp_path)
    x = space.decode(space.draw(16, seed=1))
    found = project(space, x, steps=200, starts=32, seed=2)
    real = read_samples(data, "train", range(data.splits["train"]), Rng(0)).tensor
    nearest = torch.cdist(x.flatten(1), real.flatten(1)).min(1).values.square() / x[0].numel()
    assert (found.distances < nearest).all()
