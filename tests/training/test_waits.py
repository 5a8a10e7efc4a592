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
from modkit.optim.profiles import Exponential
from modkit.progress import Silent
from modkit.rng import Rng
from modkit.runs.run import Run
from modkit.training import players as module
from modkit.training.callbacks import Callbacks
from modkit.training.players import Participant, make_participants, set_modes
from modkit.training.schedule import schedule_stages
from modkit.training.trainer import Trainer
from modkit.types import Batch
from tests.waits import Waits

EXAMPLES = Path(__file__).parents[2] / "examples"


class Meta(LocalEngine):
    def __init__(self) -> None:
        super().__init__("cpu")
        self.device = torch.device("meta")


def make_trainer(name: str, folder: Path) -> tuple[Trainer, Batch]:
    """The trainer of an example on meta tensors, and a batch."""
    spec = modkit.load_spec(EXAMPLES / f"{name}.yaml", ["train.batch_size=4"])
    site = Site(plan(spec), meta=True)
    data, settings = site.data, site.settings
    model = site.build_model(data.x, data.fields)
    site.check()
    batch = next(read_in_order(data, "train", 4, Rng(0))).to("meta")
    run = Run.create(folder / "run", SimpleNamespace(to_yaml=lambda: "name: toy\n"), {})
    stages = schedule_stages(model, settings)
    return Trainer(model, data, settings, stages, Meta(), run, Callbacks(run, model), Silent()), batch


def begin(trainer: Trainer, stage: int) -> list[Participant]:
    """The players of a stage, in training."""
    made = make_participants(trainer.model, trainer.settings, trainer.stages, stage, trainer.engine)
    set_modes(trainer.model, made)
    return made


def find_waits(name: str, folder: Path) -> Iterator[str]:
    """The places that wait in the steps of an example at which its players begin, stage by stage."""
    trainer, batch = make_trainer(name, folder)
    cursor = trainer._cursor
    for cursor.stage in range(len(trainer.stages)):
        players = begin(trainer, cursor.stage)
        average = Average(trainer.model, [path for one in players for path in one.player.modules], Exponential(0.9))
        for cursor.index in {one.player.start for one in players}:
            seen = Waits()
            try:
                with seen:
                    losses, _ = trainer._take_turns(players, batch, lambda: None)
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
    for name in ("use_precision", "use_tf32"):
        monkeypatch.setattr(module, name, lambda device, precision: nullcontext())  # meta has no autocast


@pytest.mark.wide(2)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' use of numpy
@pytest.mark.usefixtures("clothes")
@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.yaml")))
def test_no_step_of_an_example_waits(name, tmp_path):
    assert not list(find_waits(name, tmp_path))


def test_a_logged_step_copies_once(tmp_path):
    trainer, batch = make_trainer("vae-2d", tmp_path)
    players = begin(trainer, 0)
    losses, _ = trainer._take_turns(players, batch, lambda: None)
    trainer._losses.update(losses)
    with Waits() as seen, pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        trainer._losses.read(players)
    assert len(losses) > 1 and len(seen.found) == 1 and "loss_record.py:read" in seen.found[0]


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
    found = list(find_waits("vae-2d", tmp_path))
    assert all(said in one and one.startswith("tests/training/test_waits.py") for one in found), found
    assert bool(found) == (said is not None)
