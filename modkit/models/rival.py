r"""A critic as the rival of what makes samples: the losses of both sides of their game.

    critic     adversarial.discriminator(D(T(real)), D(T(fake)))   and its penalties
    generator  adversarial.generator(D(T(fake)))

T is the augmentation, if there is one. With `classify`, both sides also minimise the cross-entropy of what a head of
the critic tells of a sample's class.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from modkit.kinds import (
    Adversarial,
    AdversarialExtras,
    Augmentation,
    AugmentationExtras,
    Conditioner,
    Critic,
    Discriminator,
    Round,
    Slot,
    Step,
    Unfit,
    read_extras,
)
from modkit.losses.augmented import AugmentedCritic
from modkit.losses.judging import compute_class_loss, compute_loss_of_logits, judge
from modkit.models.model import Model
from modkit.models.passes import select_fields
from modkit.models.penalties import Penalties
from modkit.rng import Rng
from modkit.types import Batch, Cond, Judgement, TensorType

__all__ = ["Rival", "repeat_conditioner"]


class Rival:
    """A critic, the losses of both sides of its game, its penalties, and the augmentation of what it judges.

    `.paired` and `.boundary` are those of the losses (`AdversarialExtras`).

    Args:
        critic: The critic.
        adversarial: The losses.
        penalties: Those of the Model, which include the ones on the critic; None if it has none.
        augment: Changes the samples that the critic judges, in losses and in penalties; None if nothing does.
        conditioner: The critic's own, see `repeat_conditioner`; None if it shares the other side's.
        leads: Whether an augmentation whose strength follows the game follows this critic.
        maps: Whether what lies beside samples as a map (`concat`) is one, changed as they are if it has their shape.
        classify: Name of a field of classes that a head of the critic tells; None if there is none.
        names: The names of the other side's terms, of the game and of the classes.

    Raises:
        Unfit: If the augmentation follows the signs of logits, which these losses leave open.

    Examples:
        >>> from modkit import StepContext
        >>> from modkit.losses import Hinge
        >>> rival = Rival(lambda x, cond: x.sum(1), Hinge(), augment=lambda x, rng: -x)
        >>> round = Round(torch.zeros(2, 3), Cond(), Rng(0), torch.ones(2, 3), critic=rival.show(Rng(0)))
        >>> rival.compute_generator_losses(round, StepContext(Rng(0)))
        {'adversarial': tensor(3.)}
        >>> rival.compute_losses(round, StepContext(Rng(0)))  # relu(1 - 0) and relu(1 - 3)
        {'adversarial': tensor(1.)}
    """

    def __init__(
        self,
        critic: Discriminator,
        adversarial: Adversarial,
        penalties: Penalties | None = None,
        augment: Augmentation | None = None,
        conditioner: Conditioner | None = None,
        *,
        leads: bool = True,
        maps: bool = True,
        classify: str | None = None,
        names: tuple[str, str] = ("adversarial", "class"),
    ) -> None:
        self.critic, self.adversarial, self._conditioner = critic, adversarial, conditioner
        self._penalties, self._augment, self._maps, self._classify = penalties, augment, maps, classify
        self._term, self._class_term = names
        self._follower = read_extras(augment if leads else None, AugmentationExtras)
        losses = read_extras(adversarial, AdversarialExtras)
        self.paired, self.boundary, self._sign = losses.paired, losses.boundary, losses.sign
        if self._follower.observe and self.boundary is None:
            raise Unfit(
                "augment",
                f"{type(augment).__name__} expects losses under which the sign of a logit tells real from fake, got "
                f"{type(adversarial).__name__}, which leaves a constant of logits open; hold the strength "
                "(`ada: {held: 0.3}`, or a schedule such as `held: {use: warmup, value: 0.3}`), or take `diffaugment`",
            )

    def show(self, rng: Rng) -> Critic:
        """Returns the critic as it judges in one turn, for `Round.critic`; each call augments by draws of its own."""
        return AugmentedCritic(self.critic, self._augment, rng, maps=self._maps) if self._augment else self.critic

    def compute_cond(self, batch: Batch, cond: Cond) -> Cond:
        """Computes the conditions that the critic is given; they are `cond`, the other side's, if it shares these."""
        return self._conditioner(batch.fields, None).merge(batch.cond) if self._conditioner else cond

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Prepares the critic's own conditioner."""
        if self._conditioner:
            self._conditioner.prepare(select_fields(batches))

    def is_wanted(self, step: Step) -> bool:
        """Whether any loss of the other side is due."""
        return step.wants(self._term) or (self._classify is not None and step.wants(self._class_term))

    def compute_generator_losses(
        self, round: Round, step: Step, fields: Mapping[str, Tensor] = {}
    ) -> dict[str, Tensor]:
        """Computes the losses of the side that made the fakes, as far as they are due: of the game and of the classes.

        Gradients reach the fakes, but not the conditions that the critic is given.

        Args:
            round: The round, with the critic of `show`.
            step: The step.
            fields: The fields of the samples, which hold their classes.
        """
        if not self.is_wanted(step):
            return {}
        (real, beside), (fake, given) = ((x, cond.map(Tensor.detach)) for x, cond in round.judged)
        told = self._judge(round.critic, fake, given)
        losses = {}
        if step.wants(self._term):
            judge_real = partial(round.critic, real, beside)
            losses[self._term] = compute_loss_of_logits(self.adversarial, told.logits, judge_real)
        if self._classify and step.wants(self._class_term):
            losses[self._class_term] = compute_class_loss(told, self._classify, fields)
        return losses

    def compute_losses(
        self, round: Round, step: Step, fields: Mapping[str, Tensor] = {}, others: Sequence[Tensor] = ()
    ) -> dict[str, Tensor]:
        """Computes the losses of the critic, `adversarial` and `class`, and the penalties on it that are due.

        Args:
            round: The round, with the critic of `show` and fakes without gradients.
            step: The step.
            fields: The fields of the samples, which hold their classes.
            others: Further fakes. Each kind of fakes is judged by itself, for batch norm; losses are means over kinds.
        """
        (real, beside), (fake, given) = round.judged
        real_told, *fakes_told = (
            self._judge(round.critic, x, cond)
            for x, cond in [(real, beside), *((one, given) for one in others), (fake, given)]
        )
        self._observe(real_told.logits, len(real), step)
        games = [self.adversarial.discriminator(real_told.logits, told.logits) for told in fakes_told]
        losses = {"adversarial": torch.stack(games).mean()}
        if self._classify and step.wants("class"):
            told = [compute_class_loss(one, self._classify, fields) for one in (real_told, *fakes_told)]
            losses["class"] = torch.stack(told).sum()
        return losses | (self._penalties.compute("discriminator", step, round) if self._penalties else {})

    def update(self, step: Step) -> None:
        """Updates the penalties on the critic and the augmentation's strength after its turn."""
        if self._penalties:
            self._penalties.update("discriminator", step)
        if self._follower.update:
            self._follower.update(step)

    def _judge(self, critic: Critic, x: Tensor, cond: Cond) -> Judgement:
        return judge(critic, x, cond) if self._classify else Judgement(critic(x, cond), ())

    def _observe(self, real_logits: Tensor, num: int, step: Step) -> None:
        """Tells an augmentation whose strength follows the game the critic's logits of real samples, in training.

        They are counted from the boundary, and positive where a sample is taken for real. A critic that judges several
        samples at once gives fewer logits than samples: those that follow one another share one.
        """
        if self._follower.observe and step.training and self.boundary is not None:
            each = real_logits.repeat_interleave(-(-num // len(real_logits)), 0)[:num]
            self._follower.observe(self._sign * (each - self.boundary))


def repeat_conditioner(
    owner: Model, slot: Slot[Conditioner], fields: Mapping[str, TensorType] | None, name: str = "critic_conditioner"
) -> Conditioner | None:
    """Makes a second conditioner for a critic, whose player trains it; None if there is nothing to train.

    If the critic were given what the other side embeds, that side would learn to embed what the critic cannot tell
    apart. Both begin with the same weights, and a state dict without the second one's gives it those of the first.

    Args:
        owner: The Model, whose attribute `conditioner` is the first.
        slot: The slot of both.
        fields: The types of the data's fields.
        name: The path in the Model where it keeps the second.
    """
    first: Any = owner.conditioner
    trains = isinstance(first, nn.Module) and any(one.requires_grad for one in first.parameters())
    if not trains:
        return None
    second: Any = slot(fields=fields or {})
    owner.register_load_state_dict_pre_hook(partial(_fill, name))  # type: ignore[no-untyped-call]
    return second if second is not first else deepcopy(second)


def _fill(name: str, module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Takes the weights of a critic's conditioner from the other side's where a state dict was made without them."""
    own, former = f"{prefix}{name}.", f"{prefix}conditioner."
    if not any(key.startswith(own) for key in state):
        state.update({own + key.removeprefix(former): one for key, one in state.items() if key.startswith(former)})
