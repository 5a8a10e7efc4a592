"""The players of a stage: their parameters, and their turns.

In a player's turn, only its own parameters receive gradients, though gradients flow through the other modules. The
statistics of the others (batch norm's) are restored after the turn. Modules that no player of the stage owns stay
frozen, and so do parameters that did not require gradients before. After a turn of your own loop, and after a stage of
the trainer, the parameters that require gradients are those that did before.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from modkit.kinds import Engine, NetworkExtras, Optimizer, Step, Weight, read_extras
from modkit.models.model import Model, evaluate_mode
from modkit.models.player import Player
from modkit.models.step import StepContext
from modkit.nn.buffer_snapshot import BufferSnapshot
from modkit.nn.trained import is_trained
from modkit.nn.units import find_networks
from modkit.optim.guard import Guard
from modkit.optim.loss_scale import LossScale
from modkit.precision import use_precision, use_tf32, widen
from modkit.rng import Rng
from modkit.specs.settings import Settings, Term
from modkit.training.norms import adapt_norms, find_norms, measure_norms
from modkit.training.ownership import collect_modules, collect_trained
from modkit.training.schedule import StageSchedule, select_settings
from modkit.types import Batch

__all__ = [
    "Participant",
    "limit_gradients",
    "make_participants",
    "players",
    "prepare_player",
    "set_modes",
    "strip_scope",
    "weigh_losses",
]


class Participant:
    """A player of a stage: its modules, its parameters, and its turns, in a loop of your own or in the trainer's.

    Args:
        model: The model.
        player: The player.
        stages: The players of every stage, from which it knows its rivals and the opponents that have yet to start.
        stage: Index of its stage.
        seed: Seed of its draws.
    """

    optimizer: Optimizer
    """What moves its parameters in the trainer, see `equip`; a loop of your own has optimizers of its own."""
    guard: Guard
    """What takes, or skips, the optimizer's steps in the trainer."""
    rate: float | None = None
    """Learning rate of the optimizer's last step, of its first group of parameters; None before a step."""

    def __init__(
        self, model: Model, player: Player, stages: Sequence[Sequence[Player]], stage: int = 0, seed: int = 0
    ) -> None:
        self.player, self.model = player, model
        self.modules = collect_modules(model, player)
        self.collect_parameters()
        own = {id(module) for module in self.modules}
        networks = [read_extras(one, NetworkExtras) for one in find_networks(model) if id(one) in own]
        self._updates = [one.update for one in networks if one.update]
        theirs = [module for one in stages[stage] if one is not player for module in collect_modules(model, one)]
        self._staged = [*self.modules, *theirs]
        self.others = BufferSnapshot(module for module in theirs if id(module) not in own)
        self.weights = model.weights(player.name)
        self._starts: dict[str, float] = {one.name: 0 for played in stages[:stage] for one in played}
        self._starts |= {one.name: one.start for one in stages[stage]}
        self._key = seed, stage
        self._terms: Mapping[str, Term] = {}
        self._exchange: Engine | None = None

    def collect_parameters(self) -> None:
        """Collects the parameters that the player trains, the rest of the model's, and the one behind its output."""
        self.parameters = collect_trained(self.modules)
        own = {id(one) for one in self.parameters}
        self._rest = [one for one in self.model.parameters() if id(one) not in own]
        self.last_layer = self.model.get_parameter(self.player.last_layer) if self.player.last_layer else None

    @property
    def name(self) -> str:
        """Name of the player, such as `prior/denoiser`."""
        return self.player.name

    def plays(self, index: int) -> bool:
        """Whether the player plays at this step of the stage."""
        return index >= self.player.start and (index - self.player.start) % self.player.every == 0

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Prepares the player before its first turn (k-means of a codebook, statistics of the data).

        Args:
            batches: Training batches; each iteration over them is a pass over the data.
        """
        prepare_player(self.model, self.name, batches, self._staged, self._key[0])

    @contextmanager
    def begin_turn(self, index: int) -> Iterator[StepContext]:
        """Limits gradients to the player's own parameters and seeds dropout, for the duration of the context.

        Args:
            index: Number of steps since the start of the stage.
        """
        step = self._make_step(index)
        with self.hold_others(), step.rng.seed_torch():
            yield step

    @contextmanager
    def hold_others(self) -> Iterator[None]:
        """Turns off the gradients of all other parameters, and restores the rivals' statistics, within the context."""
        rest = [one for one in self._rest if one.requires_grad]
        for one in rest:
            one.requires_grad = False
        try:
            with self.others.keep():
                yield
        finally:
            for one in rest:
                one.requires_grad = True

    def compute_loss(self, batch: Batch, step: StepContext) -> Tensor:
        """Computes the weighted sum of the player's losses, a scalar.

        Args:
            batch: Samples and fields, on the model's device.
            step: The step that `begin_turn` returned.
        """
        losses = self.model.losses(self.name, batch, step)
        return weigh_losses(losses, self.weights, step, self.last_layer)

    def update(self, index: int) -> None:
        """Updates what has no gradient after the optimizer's step: networks that do so, and the model's codebooks."""
        for update in self._updates:
            update()
        self.model.update(self.name, self._make_step(index, "update"))

    def equip(self, settings: Settings, engine: Engine, steps: int) -> None:
        """Gives the player what the trainer moves it with over the steps of a stage: optimizer, learning rate, guard.

        Raises:
            ValueError: If the settings have no optimizer or no learning-rate schedule.
        """
        own, scaled = select_settings(self.player, settings), settings.precision == "fp16"
        self.settings, self._terms, self._exchange = settings, settings.terms, engine
        if own.optimizer is None or own.lr_schedule is None:
            raise ValueError("Participant expects an optimizer and a learning-rate schedule, got None")
        with limit_gradients(self.model, self.parameters):
            self.losses = engine.wrap(self.name, _Losses(self.model, self.name), self.parameters)
        self.collect_parameters()  # an engine may have replaced them
        self.optimizer = own.optimizer(parameters=self.parameters)
        self._turns = max(self._count_turns(steps), 1)
        self.schedule = own.lr_schedule(optimizer=self.optimizer, steps=self._turns)
        scale = LossScale() if scaled else None
        self.guard = Guard(self.modules, scale=scale, limit=own.skip, clip=own.clip)

    def accumulate_gradients(
        self, batch: Batch, index: int, engine: Engine, check: Callable[[str, Mapping[str, Tensor], Tensor], None]
    ) -> dict[str, Tensor]:
        """Accumulates the gradients of its weighted losses over the microbatches of a turn of the trainer.

        Args:
            batch: This process's share of the batch.
            index: Number of steps since the start of the stage.
            engine: The engine that training runs on.
            check: Is given its name, its losses and their sum, to check that they are finite.

        Returns:
            Its losses, averaged.

        Raises:
            FloatingPointError: If a loss is found not to be finite.
            ValueError: If none of its losses requires a gradient.
        """
        num, precision = self.settings.accumulate, self.settings.precision
        size = len(batch) // num
        scale, scaled = self.guard.begin(), self.guard.scale is not None
        sums: dict[str, Tensor] = {}
        with self.hold_others():
            for part in range(num):
                first = part * size
                step = self._make_step(index, rows=engine.rank * len(batch) + first, scale=scale)
                micro = batch.rows(slice(first, first + size)) if num > 1 else batch
                products = use_tf32(engine.device, precision == "tf32")
                joined = nullcontext() if part == num - 1 else engine.accumulate(self.losses)
                with joined, step.rng.seed_torch(), products:
                    with use_precision(engine.device, precision):
                        losses = self.losses(micro, step)
                    if losses:
                        loss = weigh_losses(losses, self.weights, step, self.last_layer) / num
                        if not loss.requires_grad:
                            raise ValueError(
                                f"player {self.name} expects a loss that depends on its parameters, got "
                                f"{', '.join(losses)}, through which no gradient flows"
                            )
                        # a weight that overflowed with the gradients that it compares makes the step one to skip
                        total = torch.stack([widen(one) for one in losses.values()]).sum() if scaled else loss
                        check(self.name, losses, total.detach())
                        engine.backward(loss * scale if scaled else loss)
                for name, value in losses.items():
                    value = value.detach() / num
                    sums[name] = sums[name] + value if name in sums else value
        return sums

    def step(self, engine: Engine) -> str | None:
        """Takes a step of the optimizer, then of the learning rate, or says why it is skipped."""
        if (reason := self.guard.step(engine, self.optimizer)) is None:
            self._move_rate()
        return reason

    def state_dict(self) -> dict[str, Any]:
        """The state of its learning rate and of its guard."""
        return {"lr_schedule": self.schedule.state_dict(), **self.guard.state_dict()}

    def move_rates(self, index: int) -> list[float]:
        """Moves the schedule of a new player to a step of the stage, and returns the rates of the groups there.

        It moves once for each turn before, except for those that the guard has skipped.
        """
        moves = min(self._count_turns(index), self._turns) - self.guard.skipped
        with warnings.catch_warnings():  # of steps that the optimizer took before it was stored
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
            for _ in range(moves):
                self._move_rate()
        return [group["lr"] for group in self.optimizer.param_groups]

    def _move_rate(self) -> None:
        self.rate = float(self.optimizer.param_groups[0]["lr"])
        self.schedule.step()

    def _count_turns(self, steps: int) -> int:
        """Counts the player's turns in the first steps of the stage."""
        return len(range(self.player.start, steps, self.player.every))

    def _make_step(self, index: int, *names: str, rows: int = 0, scale: float = 1.0) -> StepContext:
        """Makes the context of a turn; its source keeps a record of names of its own: a whole run's would only grow."""
        (seed, stage), player = self._key, self.player
        return StepContext(
            Rng(seed, "train", stage, index, self.name, *names).rows(rows),
            index,
            training=True,
            terms=self._terms,
            waiting=tuple(one for one in player.against if index < self._starts.get(one, math.inf)),
            exchange=self._exchange,
            loss_scale=scale,
            previous=index - player.every if index > player.start else -1,
            every=player.every,
        )


def players(model: Model, stage: int = 0, *, seed: int = 0) -> tuple[Participant, ...]:
    """Returns the players of one of a model's stages, for your own training loop.

    The modules that the players own are put into train mode, all others into eval mode; when the loop has ended, call
    `model.eval()`. Parameters that do not require gradients are in no player's `parameters`, and modules of which none
    does count as frozen: a player without `parameters`, such as a frozen critic, takes no turn.

    Args:
        model: The model.
        stage: Index of the stage, below `len(model.stages())`.
        seed: Seed of all draws. With this `seed` and the same batches, `modkit.fit` computes the same.

    Raises:
        ValueError: If the model has no such stage.

    Examples:
        >>> import torch, modkit
        >>> from modkit.models import Autoencoder
        >>> model = Autoencoder(modkit.TensorType((1, 8, 8)), encoder="mlp", decoder="mlp")
        >>> (player,) = modkit.players(model)
        >>> optimizer = torch.optim.Adam(player.parameters, lr=1e-3)
        >>> for index in range(2):
        ...     with player.begin_turn(index) as step:
        ...         player.compute_loss(modkit.Batch(torch.zeros(4, 1, 8, 8), {}), step).backward()
        ...     optimizer.step(), optimizer.zero_grad(), player.update(index)
        (None, None, None)
        (None, None, None)
    """
    stages = model.stages()
    if not 0 <= stage < len(stages):
        raise ValueError(f"players expects a stage in [0, {len(stages)}), got {stage}")
    every = model.list_active_players()
    chosen = [[one for one in every if any(fnmatchcase(one.name, p) for p in patterns)] for patterns in stages]
    found = tuple(Participant(model, one, chosen, stage, seed) for one in chosen[stage])
    set_modes(model, found)
    return found


def prepare_player(
    model: Model,
    player: str,
    batches: Iterable[Batch],
    modules: Iterable[nn.Module],
    seed: int,
    reduce: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
) -> None:
    """Prepares a player before its first turn.

    Modules are in eval mode, except for batch normalization that is to be trained and has not seen data yet: it
    computes as in training, so that what is prepared fits what training gives, and keeps the statistics of the passes.

    Args:
        model: The model.
        player: The player's name.
        batches: Training batches; each iteration over them is a pass over the data.
        modules: The modules that the players of the stage own.
        seed: Seed of the draws.
        reduce: Computes means over processes.
    """
    distinct = {id(one): one for one in find_norms(modules)}.values()
    fresh = [norm for norm in distinct if not norm.num_batches_tracked and not is_trained(norm)]
    with evaluate_mode(model), measure_norms(fresh, reduce), adapt_norms(fresh):
        model.prepare(player, batches, Rng(seed, "train", "prepare", player))


def set_modes(model: Model, participants: Iterable[Participant]) -> None:
    """Puts the modules of the players into train mode and all others into eval mode."""
    model.eval()
    for one in participants:
        for module in one.modules:
            module.training = True


class _Losses(nn.Module):
    """A player's losses as the forward of a module, which an engine can wrap."""

    def __init__(self, model: Model, player: str) -> None:
        super().__init__()
        self.model, self.player = model, player

    def forward(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        return self.model.losses(self.player, batch, step)


def make_participants(
    model: Model, settings: Settings, stages: Sequence[StageSchedule], stage: int, engine: Engine
) -> list[Participant]:
    """Makes the players of a stage that train any parameters, in the model's order, equipped for the trainer."""
    played = [one.players for one in stages]
    trained = [player for player in played[stage] if collect_trained(collect_modules(model, player))]
    made = [Participant(model, player, played, stage, settings.seed) for player in trained]
    for one in made:
        one.equip(settings, engine, stages[stage].steps)
    for one in made[:-1]:
        one.collect_parameters()  # an engine may have replaced a later player's
    return made


@contextmanager
def limit_gradients(model: nn.Module, own: Iterable[nn.Parameter] = ()) -> Iterator[None]:
    """Lets only some parameters of a model require gradients within the context."""
    before = {name: one.requires_grad for name, one in model.named_parameters()}
    model.requires_grad_(False)
    for one in own:
        one.requires_grad = True
    try:
        yield
    finally:
        for name, one in model.named_parameters():  # an engine may have replaced them
            one.requires_grad_(before.get(name, one.requires_grad))


def weigh_losses(
    losses: Mapping[str, Tensor], weights: Mapping[str, Weight], step: StepContext, last_layer: Tensor | None
) -> Tensor:
    """Sums a player's losses, each multiplied by its weight and, if it is a lazy term, by its gain.

    Weights are computed in order: each is given its own loss, and the weighted losses before it. One in a nested Model
    is given the names and the step of that Model.
    """
    seen: dict[str, Tensor] = {}
    for name, loss in losses.items():
        if (weight := weights.get(name)) is not None:
            scope = name.rpartition("/")[0]
            known = {strip_scope(term, scope): value for term, value in {**seen, name: loss}.items()}
            loss = weight(step.at(scope) if scope else step, known, last_layer) * loss
        gain = step.find_gain(name)
        seen[name] = loss if gain == 1 else gain * loss
    return torch.stack([widen(loss) for loss in seen.values()]).sum()


def strip_scope(name: str, scope: str) -> str:
    """Removes the prefix of a nested Model from a name."""
    return name.removeprefix(f"{scope}/") if scope else name
