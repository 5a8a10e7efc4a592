"""Model: a distribution over an event, and the game that trains it.

Generative models are closed under composition: a Model may hold Models (an autoencoder, a prior over its latents),
whose players and losses it passes on under a prefix (`prior/denoiser`, `prior/kl`). A player owns modules and minimises
its named losses; the trainer deals with players only.

Shape letters: b batch, and the event's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from modkit.kinds import Conditioner, ConditionerExtras, Note, Slot, Step, Weight, read_extras
from modkit.losses.coefficients import Constant
from modkit.models.composing import Composing
from modkit.models.evaluating import evaluate_mode
from modkit.models.given import draw_fields
from modkit.models.passes import select_fields
from modkit.models.player import Player, is_idle
from modkit.models.request import check_numbers, check_start_noise, choose_seed, expand_field
from modkit.nn.graphs import find_capture, replay_networks
from modkit.nn.narrowed_weights import narrow_weights
from modkit.nn.units import find_networks
from modkit.precision import AUTOCAST, check_precision, use_precision
from modkit.progress import show_progress
from modkit.rng import Rng
from modkit.samplers.sampling import Callback, Sampling, show_steps
from modkit.types import Batch, Cond, Event, Precision, TensorType, Value

__all__ = ["Density", "Model", "check_draws", "evaluate_mode", "make_weights", "reconstruct_batch"]

Density = Literal["bound", "log_prob", "weigh"]
"""A method that computes a density, or a bound on one."""

_LACKS: Mapping[Density, str] = {
    "bound": "{} has no lower bound on log p(x)",
    "log_prob": "{} has no log p(x) of its own; a bound may be there: `bound`",
    "weigh": "{} has no densities of its latents",
}


def make_weights(weights: Mapping[str, Slot[Weight] | float] | None) -> dict[str, Weight]:
    """Builds the weights in an assembly's slot, by term; a number becomes a constant weight."""
    return {
        term: Constant(value=weight) if isinstance(weight, int | float) else weight(term=term)
        for term, weight in (weights or {}).items()
    }


def check_draws(owner: object, num: int) -> range:
    """Checks the number of draws of a bound, and returns their indices.

    Raises:
        ValueError: If `num` is below 1; the message names the class of `owner`.
    """
    if num < 1:
        raise ValueError(f"{type(owner).__name__}.bound expects num of at least 1, got {num}")
    return range(num)


def reconstruct_batch(model: Model, batch: Batch) -> Tensor:
    """Reconstructs the samples of a batch, given its fields."""
    return model.reconstruct(batch.tensor, fields=batch.fields)


class Model(nn.Module, metaclass=Composing):
    """A distribution over tensors of type `event`, and the game that trains it.

    A Model keeps the parts of its slots in attributes, by any names. A Model that encodes gives the types of its
    latents in `latents` and implements `encode` and `decode`; any other Model leaves `latents` empty. The types of
    continuous latents state a deviation of 1, to which `latent` scales them for a prior. `moments` gives the mean and
    standard deviation of the latents whose scale is already known, so that `latent` need not measure it. A Model whose
    `draw` takes its noise from `modkit.samplers.draw_start` gives the type of it in `start_noise`. A Model that decodes
    noise, so that nothing else is drawn for a sample but its fields, names it in `sources` with its type: z of a GAN,
    x_T of a diffusion model with a deterministic sampler. Unless it is the start noise, drawn from N(0, I), the Model
    implements `draw_source` and `decode_source`; one that has the name of a latent begins with the latent's values. A
    conditional Model names in `reads` the fields that it is conditioned on; one that encodes a field in x's place names
    it in `inputs`. Where either has a name, `encode`, `decode`, `decode_as_latent`, `reconstruct`, `weigh` and
    `condense` are given the batch's fields by keyword. A Model whose players need optimizers of their own states them
    in `optimizers`, see `modkit.kinds.GameExtras`.

    `condensers` has the paths of the modules whose weights `condense` depends on, or is None if there is nothing to
    condense; `condensed` has patterns of the players whose losses accept condensed samples in x's place. Before a stage
    of such players with `cache`, every sample is condensed once.

    Examples:
        >>> from modkit.models import Diffusion
        >>> model = Diffusion(TensorType((1, 8, 8), (-1, 1)), network="mlp")
        >>> [player.name for player in model.players()]
        ['denoiser']
        >>> model.sample(2, seed=0).shape
        torch.Size([2, 1, 8, 8])
    """

    event: Event
    conditioner: Conditioner
    latents: Mapping[str, Event] = {}
    moments: Mapping[str, tuple[float, float]] = {}
    start_noise: TensorType | None = None
    sources: Mapping[str, TensorType] = {}
    reads: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    condensed: tuple[str, ...] = ()
    condensers: tuple[str, ...] | None = None
    frozen: bool = False
    _weights = dict[str, Weight]()

    @classmethod
    def accepts(cls, event: Event, **slots: Any) -> str | None:
        """Returns the reason why this class cannot model `event`, or None.

        The answer may depend on its parameters: the Models in its slots and plain values. By default, a Model accepts
        one continuous tensor.
        """
        if isinstance(event, tuple):
            return f"{cls.__name__} expects one tensor, got a hierarchy of {len(event)} levels"
        return f"{cls.__name__} expects a continuous type, got {event}" if event.classes is not None else None

    def players(self) -> tuple[Player, ...]:
        """The players of its game."""
        raise NotImplementedError

    def stages(self) -> tuple[tuple[str, ...], ...]:
        """The stages that it is trained in by default: for each stage, patterns of the players that play."""
        return (("*",),)

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes the losses of one player on `batch`: unweighted scalars, by name."""
        raise NotImplementedError

    def weights(self, player: str) -> Mapping[str, Weight]:
        """The weights of one player's losses, by name; any other loss has weight 1.

        By default, those of its slot. A weight of `adversarial` is one in what a critic's opponents minimise beside
        it; the critic's own has weight 1.
        """
        if any(player in one.against for one in self.players()):
            return {term: weight for term, weight in self._weights.items() if term.split("/")[0] != "adversarial"}
        return self._weights

    def update(self, player: str, step: Step) -> None:
        """Updates what has no gradients, such as codebooks; called once a step, after the player's optimizer."""

    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Prepares a player before its first turn; each iteration over `batches` is a new pass over the data.

        All processes of a training are given the same whole batches, of which each has read its share. What is costly
        to compute of batches goes through `modkit.models.passes.map_batches`, so that they share that as well.

        By default, the conditioner is prepared for the last player, which owns it.
        """
        if hasattr(self, "conditioner") and player == self.players()[-1].name:
            self.conditioner.prepare(select_fields(batches))

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Value:
        """Draws `num` samples.

        Args:
            num: Number of samples.
            fields: Fields to condition on, each with `num` rows; missing fields are drawn.
            cond: Conditions from an enclosing Model.
            rng: Source of noise, to be passed on by `rng.at(…)`; in `sample` it is a `modkit.samplers.Sampling`, which
                carries the caller's start noise and callback.

        Raises:
            ValueError: If the Model has no prior, or has not been prepared.
        """
        raise NotImplementedError

    def explain_undrawn(self) -> str | None:
        """Returns why the Model cannot draw, however it is trained, or None; one that draws by it is then refused."""
        return None

    def review(self) -> Iterable[Note]:
        """States facts about its parts, and findings where they do not suit each other, with paths relative to it.

        It is called on the meta device before training, and on a loaded model. Models inside it are reviewed
        separately.
        """
        return ()

    def draw_as_latent(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Value:
        """Draws `num` samples that are latents of an enclosing Model, with the noise of the likelihood if there is one.

        A picture is shown as the mean of p(x | z), but the mean of a latent varies less than the latents that its
        decoder was trained on. By default, as `draw`.
        """
        return self.draw(num, fields, cond, rng)

    def bound(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0) -> Tensor:
        """A lower bound on log p(x) given the conditions, in nats per sample, `b`.

        It holds in expectation over its draws, each of which is a function of `rng` and the row. Gradients flow through
        it.

        Args:
            batch: Samples x with their fields.
            num: Number of draws per sample, at least 1; more draws make the bound tighter, or less noisy.
            rng: Source of the draws.
            grain: Width of the uniform noise that dequantized x; finer detail need not be modelled. 0 if there is none.

        Raises:
            ValueError: If the Model has no bound, or `num` is below 1.
        """
        raise ValueError(_LACKS["bound"].format(type(self).__name__))

    def log_prob(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0, steps: int = 64) -> Tensor:
        """The density log p(x) given the conditions, in nats per sample, `b`, or an unbiased estimate of it.

        In place of `bound`, it has no gap. A `latent` has the bound of its autoencoder, with the prior's log p in it.

        Args:
            batch: Samples x with their fields.
            num: Number of draws per sample, at least 1, where it is an estimate: above 64 dimensions.
            rng: Source of the draws.
            grain: Width of the uniform noise that dequantized x. 0 if there is none.
            steps: Number of steps where an ODE is solved.

        Raises:
            ValueError: If the Model has none, or `num` or `steps` is below 1.
        """
        raise ValueError(_LACKS["log_prob"].format(type(self).__name__))

    def explain_lack(self, density: Density, num: int = 1, name: str | None = None) -> str | None:
        """Returns why the method of this name is refused, whatever the samples and however it is trained, or None.

        By default, whether the class has the method; a Model whose densities depend on its parts says what they lack.

        Args:
            density: The method's name.
            num: Number of draws of the bound.
            name: Name of the latent that is weighed, by default the first.
        """
        lacks = getattr(type(self), density) is getattr(Model, density)
        return _LACKS[density].format(type(self).__name__) if lacks else None

    @property
    def discrete(self) -> bool:
        """Whether `bound` bounds the probability of x, which takes finitely many values, and not a density.

        By default, whether x consists of codes.
        """
        return isinstance(self.event, TensorType) and self.event.classes is not None

    @property
    def exact(self) -> bool:
        """Whether `bound` is log p(x) itself, without draws, as importance weights need it."""
        return False

    @property
    def differentiable(self) -> bool:
        """Whether gradients of `cross_entropy` can train the model that x comes from."""
        return False

    def cross_entropy(self, batch: Batch, step: Step) -> Tensor:
        """An upper bound on -log p(x) in nats per sample, `b`, differentiable in x; by default, by one draw of `bound`.

        If x is drawn from q, the mean over draws is an upper bound on the cross entropy of q and p.

        Raises:
            ValueError: If the Model has no bound.
        """
        return -self.bound(batch, 1, step.rng)

    def review_cross_entropy(self) -> Iterable[Note]:
        """Finds, in the manner of `review`, what makes its cross entropy unfit to train the model that x comes from.

        An enclosing Model asks for it in joint training, and states the notes as its own.
        """
        return ()

    @property
    def entropic(self) -> tuple[str, ...]:
        """Names of the latents whose prior can be another Model in joint training, see `open_losses`."""
        return ()

    def open_losses(self, player: str, batch: Batch, step: Step, name: str) -> tuple[dict[str, Tensor], Value | None]:
        """Computes a player's losses when another Model is the prior of the latent `name`, for joint training.

        In place of `kl`, the losses have `entropy`, the negative entropy of q(latent | x).

        Returns:
            The losses, and the draw of the latent that they were computed at, through which gradients flow; for a
            player that draws no latent (a critic), None in its place.

        Raises:
            ValueError: If the entropy of the latent is unknown.
        """
        raise ValueError(f"{type(self).__name__} has no entropy of its latents")

    def weigh(self, x: Tensor, name: str, rng: Rng, *, fields: Mapping[str, Tensor] = {}) -> tuple[Value, Tensor]:
        """Draws the latent `name` of `x`, and computes log p(x | latent) - log q(latent | x) in nats, `b`.

        Adding a prior's log p(latent) makes it the logarithm of an importance weight with expectation p(x). With
        conditions, all of these are given the conditions.

        Raises:
            ValueError: If one of the two has no density.
        """
        raise ValueError(_LACKS["weigh"].format(type(self).__name__))

    def condense(self, x: Tensor, name: str = "", *, fields: Mapping[str, Tensor] = {}) -> tuple[Tensor, ...]:
        """Condenses `x`: computes, without draws, what `encode` to the latent `name` accepts in its place."""
        raise ValueError(f"{type(self).__name__} has nothing to condense")

    def encode(self, x: Value, name: str, rng: Rng | None = None, *, fields: Mapping[str, Tensor] = {}) -> Value:
        """Encodes `x`, or condensed samples, to the latent `name`: a draw if an rng is given, otherwise the mean."""
        raise ValueError(f"{type(self).__name__} has no latents to encode to")

    @property
    def diagonal(self) -> tuple[str, ...]:
        """Names of the latents whose q(latent | x) is a Gaussian with independent dimensions, see `encode_moments`."""
        return ()

    def encode_moments(self, x: Tensor, name: str, *, fields: Mapping[str, Tensor] = {}) -> tuple[Tensor, Tensor]:
        """Encodes `x` to the mean and the standard deviation of q(latent | x), each of the latent's shape.

        Raises:
            ValueError: If it is not a Gaussian with independent dimensions.
        """
        raise ValueError(f"{type(self).__name__} has no latent whose posterior is a diagonal Gaussian")

    def decode(self, latent: Value, name: str, rng: Rng | None = None, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Decodes the latent `name` to the mean of x; with an rng, any latents in between are drawn, not means."""
        raise ValueError(f"{type(self).__name__} has no latents to decode")

    def decode_as_latent(self, latent: Value, name: str, rng: Rng, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Decodes the latent `name` to a draw of x that is a latent of an enclosing Model; see `draw_as_latent`."""
        return self.decode(latent, name, rng, fields=fields)

    def reconstruct(self, x: Tensor, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Encodes `x` to the last latent and decodes it."""
        name = list(self.latents)[-1] if self.latents else ""
        return self.decode(self.encode(x, name, fields=fields), name, fields=fields)

    def draw_source(self, num: int, name: str, rng: Rng, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Draws `num` values of the source `name`; by default, standard normal noise, whatever the fields.

        Raises:
            ValueError: If there is no such source.
        """
        return rng.normal(name, self.allocate(num, self._find_source(name)))

    def decode_source(self, source: Tensor, name: str, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Decodes values of the source `name`, `b ...`, to the samples that they determine; gradients flow through it.

        Fields that are not given are drawn, the same in each call. By default, the source is the noise from which
        `draw` starts.

        Raises:
            ValueError: If there is no such source.
        """
        self._find_source(name)
        x = self.draw(len(source), fields, Cond(), Sampling(Rng("source"), start_noise=source))
        assert isinstance(x, Tensor)
        return x

    @property
    def device(self) -> torch.device:
        """The device of its first parameter or buffer."""
        first = next(chain(self.parameters(), self.buffers()), None)  # neither is listed as a whole
        return torch.device("cpu") if first is None else first.device

    @property
    def coder(self) -> Model | None:
        """The Model that encodes x: this one, one that it holds, or None."""
        return self if self.latents else None

    def list_active_players(self) -> tuple[Player, ...]:
        """Its players, or none if it is marked frozen or the modules of all its players are frozen."""
        players = () if self.frozen else self.players()
        return () if all(is_idle(player, self) for player in players) else players

    def list_modules(self, *names: str) -> tuple[str, ...]:
        """Returns those of the given attributes that hold modules, for `Player.modules`."""
        return tuple(name for name in names if isinstance(getattr(self, name), nn.Module))

    def allocate(self, num: int, type: TensorType) -> Tensor:
        """Allocates an uninitialised batch of a type, on the Model's device and in its precision."""
        dtype = self._floating if type.classes is None else torch.int64
        return torch.empty((num, *type.shape), dtype=dtype, device=self.device)

    @property
    def _floating(self) -> torch.dtype:
        return next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.float32)

    def complete(
        self, num: int, fields: Mapping[str, Tensor], rng: Rng, *, drawn: Mapping[str, Tensor] = {}
    ) -> Mapping[str, Tensor]:
        """Completes the fields that its conditioner reads, by draws of the missing ones.

        Args:
            num: Number of rows.
            fields: The fields that the caller gives, `num` rows each.
            rng: Source of the draws.
            drawn: Fields that were drawn for another Model of the same sample. They are used, but for those of which
                this Model also draws what belongs to the same sample.

        Returns:
            The fields given, and those drawn.

        Raises:
            ValueError: If only some of the fields that belong to one sample (a mask and what it hides) are given.
        """
        known = {**drawn, **fields} if drawn else fields
        if all(name in fields for name in self.reads):
            return known
        for group in read_extras(self.conditioner, ConditionerExtras).together:
            missing = [name for name in group if name not in fields]
            if 0 < len(missing) < len(group):
                given = ", ".join(name for name in group if name in fields)
                raise ValueError(f"sample expects {', '.join(missing)} beside {given}, got {given} alone")
        return {**known, **draw_fields(self.conditioner, num, rng.at("fields"), known)}

    @property
    def single(self) -> TensorType:
        """The event, which must be one tensor.

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
        start_noise: Tensor | None = None,
        callback: Callback | None = None,
        precision: Precision = "float32",
        **fields: int | Sequence[int] | Tensor,
    ) -> Tensor:
        """Draws `num` samples, in eval mode and without gradients.

        Sample i of a seed has the same noise on any device and for any batch size.

        Args:
            num: Number of samples, at least 1.
            seed: Seed of the noise; chosen at random if neither a seed nor a generator is given.
            generator: Generator that the seed is drawn from.
            batch_size: Number of samples drawn at a time, 256 by default.
            first: Index of the first sample, to continue from an earlier call.
            start_noise: Standard normal noise to start from, `num` rows of the Model's type `start_noise`: x_T of a
                diffusion model (`b c h w`, before the sampler scales it), z of a GAN or VAE; that of its prior for a
                Model with a prior in a latent. What is drawn later still comes from the seed.
            callback: Called after each step of a sampler or decoding with a `SamplingStep`: its index, the number of
                steps, x_t and the prediction of x_0. Several samplers report one after the other, each batch of
                `batch_size` on its own. A Model that samples in one go has no steps.
            precision: What the networks compute in, see `modkit.precision`; samples have the type of the weights.
            **fields: Fields to condition on: one value for all samples (`labels=3`), or one per sample.

        Returns:
            The samples, `num` rows of the event; the prior of a hierarchy returns a tuple, one a level.

        Raises:
            ValueError: If a number is no integer or out of range, a field is unknown, no number or of the wrong length,
                both a seed and a generator are given, the start noise is no tensor of its type or the Model starts from
                none, the device or the weights do not have the precision, or the Model cannot be sampled.
        """
        size = 256 if batch_size is None else batch_size
        check_numbers(num, size, first)
        like = torch.empty(0, dtype=self._floating, device=self.device)
        rows = {name: expand_field(name, value, num, self.reads, like) for name, value in fields.items()}
        check_start_noise(self, self.start_noise, start_noise, num)
        check_precision(precision, self.device, self)
        source = Rng("sample", choose_seed(seed, generator)).rows(first)
        drawn = []
        narrowed = narrow_weights(self.modules(), AUTOCAST.get(precision))
        capture = find_capture(self.device)
        replayed = replay_networks(find_networks(self) if capture else (), capture)
        shows = show_progress(brief=True)
        with evaluate_mode(self), use_precision(self.device, precision), narrowed, replayed, shows as shown:
            rng = Sampling(source, start_noise=start_noise, callback=show_steps(shown, callback))
            for start in range(0, num, size):
                part = {name: value[start : start + size] for name, value in rows.items()}
                drawn.append(self.draw(min(size, num - start), part, Cond(), rng.rows(start)))
                if not rng.used:
                    raise ValueError(f"{type(self).__name__} drew its own start noise, and cannot be given any")
        return self._join(drawn, precision)

    def with_parts(self, **parts: Any) -> Model:
        """Returns the same model with other parts where only sampling uses them; both share their weights.

        Args:
            **parts: Parts by the names of their slots (`sampler`, `guidance`), as a slot takes them: a name, `use(…)`,
                a class or a `functools.partial`. A slot that several Models inside have is given by its path in the
                spec: `**{"model.prior.sampler": "heun"}`.

        Raises:
            SpecError: If a part does not fit.
            ValueError: If there is no such slot, or several, training depends on it, or the model was neither composed
                nor loaded.

        Examples:
            >>> from modkit import use
            >>> from modkit.models import Diffusion
            >>> model = Diffusion(TensorType((2,)), network="mlp")
            >>> fast = model.with_parts(sampler=use("dpm-solver++", steps=5))
            >>> type(fast.sampler).__name__, next(fast.parameters()) is next(model.parameters())
            ('DPMSolverPlusPlus', True)
        """
        return Composing.swapper(self, parts)

    def _find_source(self, name: str) -> TensorType:
        if name not in self.sources:
            known = ", ".join(self.sources) or "none"
            raise ValueError(f"{type(self).__name__} expects a source, one of: {known}; got {name!r}")
        return self.sources[name]

    def _join(self, drawn: Sequence[Tensor | tuple[Tensor, ...]], precision: str) -> Any:
        """Joins batches of samples: of a tensor each, or of a tuple of tensors for a hierarchy."""
        levels = zip(*(batch if isinstance(batch, tuple) else (batch,) for batch in drawn))
        joined = tuple(self._restore_type(torch.cat(level), precision) for level in levels)
        return joined if isinstance(drawn[0], tuple) else joined[0]

    def _restore_type(self, x: Tensor, precision: str) -> Tensor:
        """Converts what autocast has narrowed to the type of the weights."""
        return x.to(self._floating) if precision in AUTOCAST and x.is_floating_point() else x
