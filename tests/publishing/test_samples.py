import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import modkit
from modkit import Spec, sample_run, train, use
from modkit.publishing.samples import Samples
from modkit.types import TensorType


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = {"batch_size": 8, "steps": 1, "device": "cpu"}
    mlp = use("mlp", width=8, depth=1)
    model = use("diffusion", network=mlp, conditioner="label", sampler=use("ddim", steps=2, eta=0.0))
    spec = Spec(name="tiny", data=use("digits", size=8), model=model, train=settings)
    return train(spec, tmp_path_factory.mktemp("samples") / "run", evaluate=False)


def test_samples_are_those_of_the_loaded_model(run):
    given = {"num": 5, "seed": 2, "label": 1, "batch_size": 2, "device": "cpu"}
    made = sample_run(run.path, ["sampler.steps=3"], **given)
    model = modkit.load(run, ["model.sampler.steps=3"])
    torch.testing.assert_close(made.x, model.sample(5, seed=2, labels=1), rtol=0, atol=1e-5)
    made = sample_run(run, ["sampler.steps=3"], noise=True, **given)
    torch.testing.assert_close(made.x, model.sample(5, seed=7, labels=1, start_noise=made.noise), rtol=0, atol=1e-5)


def test_files_hold_the_samples(run, tmp_path):
    made = sample_run(run, num=3, label=0, noise=True, device="cpu")
    made.save(tmp_path / "x.npy")
    made.save_noise(tmp_path / "noise.npy")
    made.save(tmp_path / "x.safetensors")
    assert np.array_equal(np.load(tmp_path / "x.npy"), made.x.numpy())
    assert np.array_equal(np.load(tmp_path / "noise.npy"), made.noise.numpy())
    assert torch.equal(load_file(tmp_path / "x.safetensors")["samples"], made.x)


def test_a_grid_has_a_row_a_class(run):
    made = sample_run(run, num=2, grid="classes", device="cpu")
    assert len(made.x) == 20 and made.columns == 2


def test_what_cannot_be_sampled_or_saved_is_refused(run, tmp_path):
    for options in ({"label": 1}, {"noise": True}):
        with pytest.raises(ValueError, match="or a grid of classes, got both"):
            sample_run(run, grid="classes", **options)
    made = Samples(torch.zeros(2, 1, 4, 4), TensorType((1, 4, 4), range=(-1.0, 1.0)))
    with pytest.raises(ValueError, match="expects samples with their noise, got none"):
        made.save_noise(tmp_path / "noise.npy")
    with pytest.raises(ValueError, match=r"ending in .png, .npy or .safetensors, got .*x.jpg"):
        made.save(tmp_path / "x.jpg")
    made.save(tmp_path / "folder")
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["00000.png", "00001.png"]
    with pytest.raises(ValueError, match="expects an empty or new folder"):
        made.save(tmp_path / "folder")
