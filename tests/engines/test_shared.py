"""Two processes sample and measure what one does."""

import json

import numpy as np
import pytest
import torch

import modkit
from modkit import use
from modkit.engines.local import LocalEngine
from modkit.evaluation.states import gather_states
from tests.engines import shared
from tests.engines.systems import TRANSFORMER, VQ, launch, use_latent
from tests.play import spec
from tests.refusals import check_refusal

CLOCKS = ("samples/s", "latency (s)", "peak memory (MiB)", "training steps/s")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What one process gives, and what two give."""
    alone, together = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("together")
    codes = spec(use_latent(VQ, use("autoregressive", network=TRANSFORMER)), steps=2)
    labels = spec(use("diffusion", network=use("mlp", width=8, depth=1), conditioner="label", sampler="ddim"), steps=2)
    runs = [modkit.train(one, alone / name).path for one, name in ((codes, "codes"), (labels, "labels"))]
    shared.act(alone, *runs)
    told = launch(together, [str(run) for run in runs], 2, module=shared.__name__)
    assert all(text.endswith("status 0") for text in told), told
    return alone, together


@pytest.mark.wide(1)
@pytest.mark.parametrize("name", ["batches", "grid", "one"])
def test_samples_are_those_of_one_process_to_the_bit(both, name):
    mine, theirs = (folder / f"{name}.npy" for folder in both)
    assert mine.read_bytes() == theirs.read_bytes()


def test_samples_without_a_size_of_batches_are_those_of_one_process(both):
    mine, theirs = (np.load(folder / "samples.npy") for folder in both)
    assert mine.shape == theirs.shape and np.abs(mine - theirs).max() < 1e-5  # float32 in batches of 11, and of 6


@pytest.mark.parametrize("name", ["run", "classes", "files"])
def test_scores_are_those_of_one_process_in_each_of_two(both, name):
    alone = json.loads((both[0] / f"{name}-0.json").read_text())
    for rank in range(2):
        found = json.loads((both[1] / f"{name}-{rank}.json").read_text())
        assert found["counts"] == alone["counts"] and found["notes"] == alone["notes"]
        for side in ("scores", "floor"):
            mine = {title: one for title, one in alone[side].items() if title not in CLOCKS}
            assert mine.keys() == {title for title in found[side] if title not in CLOCKS}
            for title, one in mine.items():
                assert found[side][title]["counts"] == one["counts"]
                for number in ("value", "error"):
                    want = one[number] if one[number] is None else pytest.approx(one[number], rel=1e-10, abs=1e-12)
                    assert found[side][title][number] == want, title


def test_moments_are_those_of_one_process(both):
    alone = np.load(both[0] / "statistics-0.npz")
    for rank in range(2):
        found = np.load(both[1] / f"statistics-{rank}.npz")
        assert found["origin"] == alone["origin"]
        assert all(np.allclose(found[name], alone[name], rtol=1e-10, atol=1e-12) for name in ("mu", "sigma", "count"))


class Two(LocalEngine):
    world = property(lambda self: 2, lambda self, value: None)


def test_a_state_that_cannot_be_exchanged_is_refused():
    class Local:
        pass

    message = "processes exchange states of tensors, numbers, texts, lists, tuples, dicts and objects"
    for state in (Local(), {1, 2}, torch.nn.Linear(1, 1)):
        check_refusal(message, gather_states, state, Two("cpu"))
