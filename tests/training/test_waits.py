"""A step never waits for the device; meta tensors stand for those of a device."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import modkit
from modkit.building.builder import Site
from modkit.building.plan import plan
from modkit.data.loader import read_in_order
from modkit.engines.local import LocalEngine
from modkit.optim.ema import Average
from modkit.progress import Silent
from modkit.rng import Rng
from modkit.runs.run import Run
from modkit.training import trainer as module
from modkit.training.callbacks import Callbacks
from modkit.training.players import make_player_states, set_modes
from modkit.training.trainer import Trainer
from tests.dispatch import Waits

SPECS = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
KNOWN = {"modkit/diffusion/gaussian.py:move", "modkit/diffusion/variational.py:variational_bound"}
"""Where steps still wait."""


class Meta(LocalEngine):
    def __init__(self) -> None:
        super().__init__("cpu")
        self.device = torch.device("meta")


def find_waits(path: Path, folder: Path) -> Iterator[str]:
    """The places that wait in the steps of an example at which its players begin, stage by stage."""
    spec = modkit.load_spec(path, ["train.batch_size=4"])
    site = Site(plan(spec), meta=True)
    data, settings = site.make_data(), site.make_settings()
    model = site.build_model(data.x, data.fields)
    site.check()
    batch = next(read_in_order(data, "train", 4, Rng(0))).to("meta")
    run = Run.create(folder / "run", SimpleNamespace(to_yaml=lambda: "name: toy\n"), {})
    trainer = Trainer(model, data, settings, Meta(), run, Callbacks(run, ()), Silent())
    cursor = trainer._cursor
    for cursor.stage, stage in enumerate(trainer.stages):
        states = make_player_states(model, settings, stage, trainer.engine)
        average = Average(model, [path for state in states for path in state.player.modules], 0.9)
        set_modes(model, states)
        for cursor.index in {state.player.start for state in states}:
            seen = Waits()
            try:
                with seen:
                    losses = trainer._take_step(states, batch)
                    average.update()
            except RuntimeError as error:
                if not seen.found:  # else a value was read, which meta tensors refuse
                    raise
                assert "meta" in str(error).lower()
            else:
                assert losses
            yield from seen.found


@pytest.fixture(autouse=True)
def cast_nothing(monkeypatch):
    monkeypatch.setattr(module, "cast_losses", lambda device, precision: nullcontext())  # meta has no autocast


@pytest.fixture(scope="module")
def met():
    """The places of `KNOWN` that were met."""
    return set()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' use of numpy
@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_no_step_of_an_example_waits(path, tmp_path, met):
    found = {one.partition(": ")[0]: one for one in find_waits(path, tmp_path)}
    met.update(found)
    assert not [one for place, one in found.items() if place not in KNOWN]


def test_what_still_waits_is_met(met):
    assert met >= KNOWN


@pytest.mark.parametrize(
    ("wait", "said"),
    [
        (lambda loss: loss.item(), "aten._local_scalar_dense"),
        (lambda loss: float(loss) > 0, "aten._local_scalar_dense"),
        (lambda loss: bool(loss.isfinite()), "aten._local_scalar_dense"),
        (lambda loss: loss.reshape(1)[loss.reshape(1) > 0], "aten.index.Tensor"),
        (lambda loss: loss.reshape(1).nonzero(), "aten.nonzero"),
        (lambda loss: loss.reshape(1).unique(), "aten._unique2"),
        (lambda loss: loss.reshape(1).masked_select(loss > 0), "aten.masked_select"),
        (lambda loss: loss.cpu(), "aten._to_copy"),
        (lambda loss: torch.zeros(1).to(loss.device), "aten._to_copy"),
        (lambda loss: torch.empty_like(loss).copy_(torch.zeros(())), "aten.copy_"),
        (lambda loss: torch.tensor(1.0, device=loss.device), "torch.tensor on the device"),
        (lambda loss: torch.zeros(1).to(loss.device, non_blocking=True), None),
        (lambda loss: loss * torch.tensor(2.0), None),
    ],
)
def test_one_wait_put_back_is_found(wait, said, tmp_path, monkeypatch):
    weigh = module.weigh_losses

    def weigh_and_wait(*given):
        loss = weigh(*given)
        wait(loss)
        return loss

    monkeypatch.setattr(module, "weigh_losses", weigh_and_wait)
    (path,) = [path for path in SPECS if path.stem == "vae-2d"]
    found = list(find_waits(path, tmp_path))
    assert all(said in one and one.startswith("tests/training/test_waits.py") for one in found), found
    assert bool(found) == (said is not None)
