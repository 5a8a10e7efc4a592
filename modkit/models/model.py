"""Model: a distribution over an event, and the game that trains it.

Generative models are closed under composition: a Model may hold Models (an autoencoder, a prior over its latents),
whose
players and losses it passes on under a prefix (`prior/denoiser`, `prior/kl`). A player owns modules and minimises its
named losses; what trains them knows players and nothing else.

Shape letters: b batch, and the event's own.
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from modkit.kinds import Conditioner, Slot, Step, Weight
from modkit.losses.coefficients import Constant
from modkit.rng import Rng
from modkit.types import Batch, Cond, Event, TensorType, Value

__all__ = ["Model", "Nested", "Pass", "Player", "draws", "evaluating", "made_weights", "prefixed"]


@dataclass(frozen=True)
class Player:
    """Owns modules and minimises its named losses.

    Args:
        name: `generator`; nested Models prefix it: `prior/denoiser`.
        modules: Paths of the modules it owns; perhaps none with parameters (EM): its turn is `prepare`.
        every: Plays each n-th step.
        start: First step of the stage at which it plays.
        against: Players that must have started before the terms between them are computed: those named `adversarial`
            or `adversarial/PLAYER`.
        last_layer: Path of the parameter that makes its output, for gradient-balanced weights.
    """

    name: str
    modules: tuple[str, ...]
    every: int = 1
    start: int = 0
    against: tuple[str, ...] = ()
    last_layer: str | None = None


def prefixed(player: Player, name: str) -> Player:
    """The player of a nested Model kept under the attribute `name`."""
    return replace(
        player,
        name=f"{name}/{player.name}",
        modules=tuple(f"{name}.{path}" for path in player.modules),
        against=tuple(f"{name}/{other}" for other in player.against),
        last_layer=player.last_layer and f"{name}.{player.last_layer}",
    )


@dataclass(frozen=True)
class Pass:
    """A `Step` outside training: nothing moves, every term is wanted."""

    rng: Rng
    index: int = 0
    moves: bool = False

    def wants(self, term: str) -> bool:
        """True."""
        return True


class Nested:
    """A `Step` as the nested Model `name` sees it: draws and terms under its own name."""

    def __init__(self, step: Step, name: str) -> None:
        self.index, self.moves, self.rng = step.index, step.moves, step.rng.at(name)
        self._step, self._name = step, name

    def wants(self, term: str) -> bool:
        """Whether the enclosing step wants `NAME/term`."""
        return self._step.wants(f"{self._name}/{term}")


def made_weights(weights: Mapping[str, Slot[Weight] | float] | None) -> dict[str, Weight]:
    """The weights of an assembly's slot, by term; a number is a constant one."""
    return {
        term: Constant(value=weight) if isinstance(weight, int | float) else weight(term=term)
        for term, weight in (weights or {}).items()
    }


def draws(owner: object, num: int) -> range:
    """The draws of a bound, numbered.

    Raises:
        ValueError: If `num` is below 1; it names the class of `owner`.
    """
    if num < 1:
        raise ValueError(f"{type(owner).__name__}.bound expects num of at least 1, got {num}")
    return range(num)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Runs without gradients in eval mode, and puts each module's own mode back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


class Composing(type):
    """The type of Models' classes: calling one composes the objects in its slots, see `modkit.building.compose`."""

    composer: ClassVar[Callable[..., Any]]

    def __call__(cls, *types: Any, **arguments: Any) -> Any:
        """The model of some types, from the objects in its slots."""
        return Composing.composer(cls, *types, **arguments)

    @property
    def __signature__(cls) -> inspect.Signature:
        """That of the constructor."""
        constructor = inspect.signature(cls.__init__)  # type: ignore[misc]
        return constructor.replace(parameters=list(constructor.parameters.values())[1:])

    def assemble(cls, *types: Any, **arguments: Any) -> Any:
        """The model of types and of factories in its slots."""
        return super().__call__(*types, **arguments)


class Model(nn.Module, metaclass=Composing):
    """A distribution over tensors of type `event`, and the game that trains it.

    A Model keeps each slot's part under the slot's name. Models that encode have `latents` and implement `encode` and
    `decode`; the others leave `latents` empty. In `moments` stand the mean and standard deviation of those latents
    whose scale is known from before, so that `latent` need not measure it. Conditional ones name in `reads` the fields
    that they are conditioned on.
    """

    event: Event
    conditioner: Conditioner
    latents: Mapping[str, Event] = {}
    moments: Mapping[str, tuple[float, float]] = {}
    reads: tuple[str, ...] = ()
    frozen: bool = False

    @classmethod
    def accepts(cls, event: Event, **slots: Any) -> str | None:
        """Why this cannot model `event`, or None; asks the Models in its slots.

        By default a Model takes one continuous tensor.
        """
        if isinstance(event, tuple):
            return f"{cls.__name__} expects one tensor, got a hierarchy of {len(event)} levels"
        return f"{cls.__name__} expects a continuous type, got {event}" if event.classes is not None else None

    def players(self) -> tuple[Player, ...]:
        """The players of its game."""
        raise NotImplementedError

    def stages(self) -> tuple[tuple[str, ...], ...]:
        """Its natural game: for each stage, patterns of the players that play."""
        return (("*",),)

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The named, unweighted losses of one player on `batch`, scalars."""
        raise NotImplementedError

    def weights(self, player: str) -> Mapping[str, Weight]:
        """Weights of one player's losses, by name; those not named weigh 1."""
        return {}

    def update(self, player: str, step: Step) -> None:
        """Called once a step after the player's optimizer: codebooks move, dead codes are revived."""

    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Called once before the player's first turn; each iteration over `batches` is a fresh pass over the data."""

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Value:
        """Draws `num` samples.

        Args:
            num: Number of samples.
            fields: Fields to condition on, each with `num` rows; what is missing is drawn.
            cond: What an enclosing Model conditions on.
            rng: Source of noise.

        Raises:
            ValueError: If it has no prior, or has not been prepared.
        """
        raise NotImplementedError

    def bound(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0) -> Tensor:
        """A lower bound on log p(x), given what the model is conditioned on, in nats a sample, `b`.

        It holds in expectation over its draws, each a function of `rng` and the row. Gradients flow through it.

        Args:
            batch: Samples x with their fields.
            num: Draws a sample, at least 1; more of them make the bound tighter, or less noisy.
            rng: Source of the draws.
            grain: Width of the uniform noise in x, where it was dequantised: nothing finer needs to be modelled.

        Raises:
            ValueError: If this Model has no bound, or `num` is below 1.
        """
        raise ValueError(f"{type(self).__name__} has no lower bound on log p(x)")

    @property
    def differentiable(self) -> bool:
        """Whether what makes x can be trained through `cross_entropy`."""
        return False

    def cross_entropy(self, batch: Batch, step: Step) -> Tensor:
        """An upper bound on -log p(x), differentiable in x, in nats a sample, `b`: here `bound`'s of one draw.

        Where x is a draw of q, its mean over draws is a bound on the cross entropy of q and p.

        Raises:
            ValueError: If this Model has no bound.
        """
        return -self.bound(batch, 1, step.rng)

    @property
    def entropic(self) -> tuple[str, ...]:
        """Those of its latents whose prior can be left to another Model, by `open_losses`."""
        return ()

    def open_losses(self, player: str, batch: Batch, step: Step, name: str) -> tuple[dict[str, Tensor], Value | None]:
        """A player's `losses` where another Model is the prior of the latent `name`, for joint training.

        They hold `entropy`, less that of q(latent | x), in place of `kl`, and the latent is the draw that they were
        computed at, through which gradients flow; None of a player that makes none (a critic).

        Raises:
            ValueError: If the entropy of the latent is not known.
        """
        raise ValueError(f"{type(self).__name__} has no entropy of its latents")

    def weigh(self, x: Tensor, name: str, rng: Rng) -> tuple[Value, Tensor]:
        """A draw of the latent `name` of `x`, and log p(x | latent) - log q(latent | x) in nats, `b`.

        With a prior's log p(latent) this is the logarithm of an importance weight, of expectation p(x).

        Raises:
            ValueError: If one of the two is no density.
        """
        raise ValueError(f"{type(self).__name__} has no densities of its latents")

    def encode(self, x: Tensor, name: str, rng: Rng | None = None) -> Value:
        """The latent `name` of `x`: its mean, or a draw with an rng."""
        raise ValueError(f"{type(self).__name__} has no latents to encode to")

    def decode(self, latent: Value, name: str) -> Tensor:
        """The mean of x given the latent `name`."""
        raise ValueError(f"{type(self).__name__} has no latents to decode")

    def reconstruct(self, x: Tensor) -> Tensor:
        """`x` through its latent and back."""
        name = list(self.latents)[-1] if self.latents else ""
        return self.decode(self.encode(x, name), name)

    @property
    def device(self) -> torch.device:
        """The device of its first parameter or buffer."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")

    @property
    def coder(self) -> Model | None:
        """The Model that encodes x, itself or one that it holds, or None: what is yet to be sampled it reconstructs."""
        return self if self.latents else None

    def active_players(self) -> tuple[Player, ...]:
        """Its players, or none where it is frozen."""
        return () if self.frozen else self.players()

    def owned(self, *names: str) -> tuple[str, ...]:
        """Those of its attributes that are modules, for `Player.modules`."""
        return tuple(name for name in names if isinstance(getattr(self, name), nn.Module))

    def blank(self, num: int, type: TensorType) -> Tensor:
        """An uninitialised batch of a type, on this Model's device and in its precision."""
        dtype = self._floating if type.classes is None else torch.int64
        return torch.empty((num, *type.shape), dtype=dtype, device=self.device)

    @property
    def _floating(self) -> torch.dtype:
        return next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.float32)

    def complete(self, num: int, fields: Mapping[str, Tensor], rng: Rng) -> Mapping[str, Tensor]:
        """The fields that its conditioner reads: those given, the missing ones drawn.

        Raises:
            ValueError: If of fields that belong to one sample (a mask and what it hides) only some are given.
        """
        if all(name in fields for name in self.reads):
            return fields
        for group in getattr(self.conditioner, "together", ()):
            missing = [name for name in group if name not in fields]
            if 0 < len(missing) < len(group):
                given = ", ".join(name for name in group if name in fields)
                raise ValueError(f"sample expects {', '.join(missing)} beside {given}, got {given} alone")
        return {**self.conditioner.draw(num, rng.at("fields")), **fields}

    @property
    def single(self) -> TensorType:
        """The event of a Model over one tensor.

        Raises:
            ValueError: If the event is a hierarchy.
        """
        if isinstance(self.event, tuple):
            raise ValueError(f"{type(self).__name__} expects one tensor, got a hierarchy of {len(self.event)} levels")
        return self.event

    @final
    def sample(
        self,
        num: int,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        batch_size: int | None = None,
        first: int = 0,
        **fields: int | Sequence[int] | Tensor,
    ) -> Value:
        """Draws `num` samples, `num` rows of the event, in eval mode and without gradients.

        Sample i of a seed has the same noise on any device and in any batch.

        Args:
            num: Number of samples, at least 1.
            seed: Seed of the noise; fresh where neither it nor a generator is given.
            generator: Where to take a seed from instead.
            batch_size: Samples made at a time; 256 where not given.
            first: Number of the first sample, to go on from an earlier call.
            **fields: What to condition on: `labels=3` for all, or one value a sample (`masked`, `num` rows of maps).

        Raises:
            ValueError: If a number is out of range, a field is unknown or has another length, both seed and generator
                are given, or the Model cannot be sampled.
        """
        size = 256 if batch_size is None else batch_size
        if num < 1 or size < 1 or first < 0:
            raise ValueError(f"sample expects num >= 1, batch_size >= 1 and first >= 0, got {num}, {size} and {first}")
        rows = {name: self._field(name, value, num) for name, value in fields.items()}
        rng = Rng("sample", _seed(seed, generator)).rows(first)
        drawn = []
        with evaluating(self):
            for start in range(0, num, size):
                part = {name: value[start : start + size] for name, value in rows.items()}
                drawn.append(self.draw(min(size, num - start), part, Cond(), rng.rows(start)))
        if isinstance(drawn[0], tuple):
            return tuple(torch.cat(level) for level in zip(*drawn))
        return torch.cat([value for value in drawn if isinstance(value, Tensor)])

    def _field(self, name: str, value: int | Sequence[int] | Tensor, num: int) -> Tensor:
        if name not in self.reads:
            known = ", ".join(self.reads) or "none: the model is unconditional"
            raise ValueError(f"sample got the field {name!r}, expected one of: {known}")
        tensor = torch.as_tensor(value, device=self.device)
        tensor = tensor.to(self._floating) if tensor.is_floating_point() else tensor
        tensor = tensor.expand(num) if tensor.ndim == 0 else tensor
        if len(tensor) != num:
            raise ValueError(f"sample expects one value of {name!r} for each of {num} samples, got {len(tensor)}")
        return tensor


def _seed(seed: int | None, generator: torch.Generator | None) -> int:
    if seed is not None and generator is not None:
        raise ValueError("sample expects a seed or a generator, got both")
    if seed is not None:
        return seed
    if generator is None:
        return secrets.randbits(62)
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))
