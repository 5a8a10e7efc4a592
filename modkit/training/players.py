"""The players of a stage: their parameters, and their turns.

In a player's turn, only its own parameters receive gradients, though gradients flow through the other modules. The
statistics of the others (batch norm's) are restored after the turn. Modules that no player of the stage owns stay
frozen, and so do parameters that did not require gradients before. After a turn of your own loop, and after a stage of
the trainer, the parameters that require gradients are those that did before.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from modkit.kinds import Engine, NetworkExtras, Slot, Step, Weight, read_extras
from modkit.models.model import Model, evaluate_mode
from modkit.models.player import Player
from modkit.models.step import StepContext
from modkit.nn.held import Held
from modkit.nn.trained import is_trained
from modkit.nn.units import find_networks
from modkit.optim.guard import Guard
from modkit.optim.loss_scale import LossScale
from modkit.precision import widen
from modkit.rng import Rng
from modkit.specs.settings import PlayerSettings, Settings
from modkit.training.norms import adapt_norms, find_norms, measure_norms
from modkit.training.ownership import collect_modules, collect_trained
from modkit.training.schedule import StageSchedule, select_settings
from modkit.types import Batch

__all__ = [
    "Participant",
    "PlayerState",
    "limit_gradients",
    "make_player_states",
    "players",
    "prepare_player",
    "set_modes",
    "strip_scope",
    "take_turn",
    "weigh_losses",
]

T = TypeVar("T")


class Participant:
    """A player of a stage: its modules, its parameters, and its turns in a training loop.

    Args:
        model: The model.
        player: The player.
        rivals: The other players of the stage.
        stage: Index of the stage, for the draws of its turns.
        seed: Seed of its draws.
    """

    def __init__(self, model: Model, player: Player, rivals: Sequence[Player], stage: int = 0, seed: int = 0) -> None:
        self.player, self.model = player, model
        self.modules = collect_modules(model, player)
        self.collect_parameters()
        own = {id(module) for module in self.modules}
        networks = [read_extras(one, NetworkExtras) for one in find_networks(model) if id(one) in own]
        self._updates = [one.update for one in networks if one.update]
        theirs = [module for one in rivals for module in collect_modules(model, one)]
        self._staged = [*self.modules, *theirs]
        self.others = Held(module for module in theirs if id(module) not in own)
        self.weights = model.weights(player.name)
        self._starts = {one.name: one.start for one in rivals}
        self._key = seed, stage

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

    def find_previous(self, index: int) -> int:
        """The step of its turn before the one at this step, -1 if it is the first."""
        return index - self.player.every if index > self.player.start else -1

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
        step = self._make_context(index)
        rest = [one for one in self._rest if one.requires_grad]
        _require(rest, False)
        try:
            with self.others.keep(), step.rng.seed_torch():
                yield step
        finally:
            _require(rest, True)

    def compute_loss(self, batch: Batch, step: StepContext) -> Tensor:
        """Computes the weighted sum of the player's losses, a scalar.

        Args:
            batch: Samples and fields, on the model's device.
            step: The step that `begin_turn` returned.
        """
        losses = self.model.losses(self.name, batch, step)
        return weigh_losses(losses, self.weights, step, self.last_layer)

    def update(self, index: int) -> None:
        """Updates what has no gradient, such as codebooks, after the optimizer's step."""
        self.update_within(self._make_context(index, "update"))

    def update_within(self, step: StepContext) -> None:
        """Updates, in the context of a step, what has no gradient: the player's networks that do so, and the model."""
        for update in self._updates:
            update()
        self.model.update(self.name, step)

    def _make_context(self, index: int, *names: str) -> StepContext:
        seed, stage = self._key
        rng = Rng(seed, "train", stage, index, self.name, *names)
        waiting = tuple(name for name in self.player.against if index < self._starts.get(name, 0))
        return StepContext(rng, index, training=True, waiting=waiting, previous=self.find_previous(index))


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
    chosen = [one for one in every if any(fnmatchcase(one.name, pattern) for pattern in stages[stage])]
    found = tuple(Participant(model, one, [p for p in chosen if p is not one], stage, seed) for one in chosen)
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


class PlayerState(Participant):
    """A player during a stage of the trainer: with its optimizer and learning-rate schedule.

    Args:
        model: The model.
        player: The player.
        rivals: The other players of the stage.
        settings: The player's training settings.
        steps: Number of steps of the stage.
        engine: The engine that training runs on.
        scaled: Whether its losses are scaled, for gradients in float16.

    Raises:
        ValueError: If the settings have no optimizer or no learning-rate schedule.
    """

    def __init__(
        self,
        model: Model,
        player: Player,
        rivals: Sequence[Player],
        settings: PlayerSettings,
        steps: int,
        engine: Engine,
        scaled: bool = False,
    ) -> None:
        super().__init__(model, player, rivals)
        self.clip = settings.clip
        with limit_gradients(model, self.parameters):
            self.losses = engine.wrap(player.name, _Losses(model, player.name), self.parameters)
        self.collect_parameters()  # an engine may have replaced them
        self.optimizer = _expect(settings.optimizer)(parameters=self.parameters)
        self._turns = max(self._count_turns(steps), 1)
        self.schedule = _expect(settings.lr_schedule)(optimizer=self.optimizer, steps=self._turns)
        guarded, scale = scaled or settings.skip is not None, LossScale() if scaled else None
        self.guard = Guard(Held(self.modules), scale=scale, limit=settings.skip) if guarded else None

    @property
    def scaled(self) -> bool:
        """Whether its losses are scaled; a step at which they or their gradients overflow is then skipped."""
        return self.guard is not None and self.guard.scale is not None

    def step(self, engine: Engine) -> str | None:
        """Takes a step of the optimizer, then of the learning rate, or says why it is skipped."""
        if self.guard is None:
            engine.step(self.optimizer, self.clip)
        elif (reason := self.guard.step(engine, self.optimizer, self.clip)) is not None:
            return reason
        self.schedule.step()
        return None

    def state_dict(self) -> dict[str, Any]:
        """The state of its learning rate and of its guard."""
        return {"lr_schedule": self.schedule.state_dict(), **(self.guard.state_dict() if self.guard else {})}

    def move_rates(self, index: int) -> list[float]:
        """Moves the schedule of a new player to a step of the stage, and returns the rates of the groups there.

        It moves once for each turn before, except for those that the guard has skipped.
        """
        moves = min(self._count_turns(index), self._turns) - (self.guard.skipped if self.guard else 0)
        with warnings.catch_warnings():  # of steps that the optimizer took before it was stored
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
            for _ in range(moves):
                self.schedule.step()
        return [group["lr"] for group in self.optimizer.param_groups]

    def _count_turns(self, steps: int) -> int:
        """Counts the player's turns in the first steps of the stage."""
        return len(range(self.player.start, steps, self.player.every))


class _Losses(nn.Module):
    """A player's losses as the forward of a module, which an engine can wrap."""

    def __init__(self, model: Model, player: str) -> None:
        super().__init__()
        self.model, self.player = model, player

    def forward(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        return self.model.losses(self.player, batch, step)


def make_player_states(model: Model, settings: Settings, stage: StageSchedule, engine: Engine) -> list[PlayerState]:
    """Makes the states of a stage's players that train any parameters, in the model's order."""
    return [
        PlayerState(
            model,
            player,
            [other for other in stage.players if other is not player],
            select_settings(player, settings),
            stage.steps,
            engine,
            settings.precision == "fp16",
        )
        for player in stage.players
        if collect_trained(collect_modules(model, player))
    ]


@contextmanager
def take_turn(state: Participant, rivals: Sequence[Participant]) -> Iterator[None]:
    """Limits gradients to a player's own parameters, and afterwards restores the statistics of its rivals."""
    for rival in rivals:
        _require(rival.parameters, False)
    _require(state.parameters, True)
    with state.others.keep():
        yield


def _require(parameters: Iterable[nn.Parameter], required: bool) -> None:
    """Sets whether parameters require gradients, where that changes: reading it takes a quarter of the time."""
    for parameter in parameters:
        if parameter.requires_grad is not required:
            parameter.requires_grad = required


@contextmanager
def limit_gradients(model: nn.Module, own: Iterable[nn.Parameter] = ()) -> Iterator[None]:
    """Lets only some parameters of a model require gradients within the context; turns may switch on others there."""
    before = {name: one.requires_grad for name, one in model.named_parameters()}
    model.requires_grad_(False)
    _require(own, True)
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


def _expect(slot: Slot[T] | None) -> Slot[T]:
    if slot is None:
        raise ValueError("PlayerState expects an optimizer and a learning-rate schedule, got None")
    return slot
