r"""Triple-GAN: a generator and a classifier make pairs (x, y), and a discriminator is to tell real ones.

    D   max  E_p log D(x, y) + alpha E_p_c log(1 - D(x, y)) + (1 - alpha) E_p_g log(1 - D(x, y))
    G   min  (1 - alpha) E_p_g log(1 - D(x, y)),   x = G(z, y)                    or another loss of its side
    C   min  alpha E_p(x) sum_y p_c(y | x) log(1 - D(x, y)) - E_p log p_c(y | x) - lambda E_p_g log p_c(y | x)

p_c pairs samples with the classes that C gives them. The optimum of D is p / (p + (1 - alpha) p_g + alpha p_c) (Li et
al., 2017, eq. 3 and 4, lemma 3.1, https://arxiv.org/abs/1703.02291). Shape letters: b batch, k classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from modkit import Batch, Cond, Model, Player, Rng, Slot, Step, TensorType, kinds
from modkit.kinds import default
from modkit.models import call_generator, compute_generator_loss, make_weights
from modkit.samplers import draw_start
from modkit.types import CondType


class TripleGAN(Model):
    """A generator, a classifier and a discriminator, of data of which few have labels.

    Args:
        generator: Maps noise and a class to data.
        classifier: Maps data to features, from which a linear layer tells the class.
        discriminator: Tells real pairs of data and class from others.
        adversarial: Losses of the discriminator and the generator.
        conditioner: Embeds the class, the only field that it reads; it is trained with the generator.
        labelled: Name of the field of samples whose class is known; the data themselves by default.
        alpha: Share of C's pairs among those that are not real, in (0, 1).
        z_dim: Width of the noise.
        weights: Weights of the losses by term; lambda, that of `pseudo`, is 0.1 by default.
    """

    optimizers = {"*": {"use": "adam", "lr": 3e-4, "betas": [0.5, 0.999]}}

    def __init__(
        self,
        x: TensorType,
        cond: CondType = CondType(),
        fields: Mapping[str, TensorType] = {},
        *,
        generator: Slot[kinds.Generator] = default("mlp"),
        classifier: Slot[kinds.Encoder] = default("mlp"),
        discriminator: Slot[kinds.Discriminator] = default("mlp"),
        adversarial: Slot[kinds.Adversarial] = default("non-saturating"),
        conditioner: Slot[kinds.Conditioner] = default("label"),
        labelled: str | None = None,
        alpha: float = 0.5,
        z_dim: int = 64,
        weights: dict[str, Slot[kinds.Weight] | float] | None = None,
    ) -> None:
        super().__init__()
        self.conditioner = conditioner(fields=dict(fields))
        self.reads = self.conditioner.reads
        classes = fields[self.reads[0]].classes if len(self.reads) == 1 else None
        if cond or not classes or labelled and labelled not in fields or not 0 < alpha < 1:
            received = f"{cond}, {self.reads} and {labelled} of {list(fields)}, {alpha}"
            raise ValueError(f"TripleGAN expects no conditions, one class and alpha in (0, 1), got {received}")
        self.event, self.labelled, self.alpha, self.classes = x, labelled, alpha, classes
        self.start_noise = TensorType((z_dim,), std=1.0)
        self.sources = {"z": self.start_noise}
        self.generator = generator(z=self.start_noise, x=x, cond=self.conditioner.type)
        self.encoder: Any = classifier(x=x, cond=CondType())
        self.classifier: Callable[[Tensor], Tensor] = nn.Linear(cast(TensorType, self.encoder.h).numel, classes)
        self.discriminator = discriminator(x=x, cond=self.conditioner.type)
        self.adversarial, self._weights = adversarial(), make_weights({"pseudo": 0.1} | (weights or {}))

    def players(self) -> tuple[Player, ...]:
        """`discriminator`, `classifier` and `generator`."""
        made = {"discriminator": ("discriminator",), "classifier": ("encoder", "classifier")}
        return *map(Player, made, made.values()), Player("generator", self.list_modules("generator", "conditioner"))

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes `adversarial` of each player and, of the classifier, `class` and `pseudo`."""
        x, y = batch.tensor, batch.fields[self.reads[0]]
        real, cond = batch.fields[self.labelled] if self.labelled else x, self._embed(y)
        if player == "generator":
            judged = self._generate(cond, step.rng, len(x)), real, cond.map(Tensor.detach)
            loss = compute_generator_loss(self.adversarial, self.discriminator, *judged)
            return {"adversarial": (1 - self.alpha) * loss}
        with torch.no_grad():
            fake, p = self._generate(cond, step.rng, len(x)), self.classify(x).softmax(1).cumsum(1)
        if player == "classifier":
            return self._compute_classifier_losses(x, real, fake, y)
        drawn = (p < step.rng.uniform("class", p[:, :1])).sum(1).clamp(max=self.classes - 1)
        told, judge = self.discriminator(real, cond), self.adversarial.discriminator
        by_classifier, by_generator = self.discriminator(x, self._embed(drawn)), self.discriminator(fake, cond)
        return {"adversarial": self.alpha * judge(told, by_classifier) + (1 - self.alpha) * judge(told, by_generator)}

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Generates samples of given classes; missing ones are drawn by their frequencies."""
        return self._generate(self.conditioner(self.complete(num, fields, rng), None), rng, num)

    def classify(self, x: Tensor) -> Tensor:
        """Computes the logits of the classes, `b k`."""
        return self.classifier(self.encoder(x).flatten(1))

    def _embed(self, y: Tensor) -> Cond:
        return self.conditioner({self.reads[0]: y}, None)

    def _generate(self, cond: Cond, rng: Rng, num: int) -> Tensor:
        return call_generator(self.generator, draw_start(rng, "z", self.allocate(num, self.sources["z"])), cond, rng)

    def _compute_classifier_losses(self, x: Tensor, real: Tensor, fake: Tensor, y: Tensor) -> dict[str, Tensor]:
        every = torch.arange(self.classes, device=x.device).repeat(len(x))
        told = self.discriminator(x.repeat_interleave(self.classes, 0), self._embed(every))
        pairs = self.classify(x).softmax(1) * softplus(told.view(len(x), self.classes, -1).mean(2))
        known, pseudo = (cross_entropy(self.classify(one), y) for one in (real, fake))
        return {"adversarial": -self.alpha * pairs.sum(1).mean(), "class": known, "pseudo": pseudo}


class FewLabels:
    """Samples of data, each beside a sample (`labelled`) with a label (`class`), drawn from a few.

    Args:
        data: The data set, with the field `labels`.
        num: Number of samples with labels: the first of the training split.
    """

    def __init__(self, *, data: Slot[kinds.Data] = default("digits"), num: int = 100) -> None:
        self.data, self.num = data(), num
        if "labels" not in self.data.fields or not 1 <= num <= self.data.splits["train"]:
            raise ValueError(f"FewLabels expects labels and {num} samples, got {self.data.fields}, {self.data.splits}")
        self.x, self.splits, self.levels = self.data.x, self.data.splits, self.data.levels
        self.fields = {"labelled": self.x, "class": self.data.fields["labels"]}
        self.key = f"{self.data.key}-{num}-labels"

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the samples at `indices`, each beside a labelled one."""
        drawn = [int(rng.at(index).integers("labelled", torch.empty(1), 0, self.num)) for index in indices]
        asked = (self.data.read(split, indices, rng), self.data.read("train", drawn, rng.at("labelled")))
        finish = kinds.read_extras(self.data, kinds.DataExtras).finish
        x, labelled = map(finish, asked) if finish else asked
        return Batch(x.tensor, {"labelled": labelled.tensor, "class": labelled.fields["labels"]})
