"""Scenes: a layout says where things are, a network paints them: -log p(places) + |x - paint(places)|^2 / 2."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, distributions, nn

from modkit import Batch, Cond, CondType, Model, Player, Rng, Slot, Step, TensorType, kinds


class Layout(Protocol):
    """A distribution of places: its loss is the mean of -log p."""

    def loss(self, places: Tensor) -> Tensor: ...
    def draw(self, num: int, rng: Rng) -> Tensor: ...


class Standard(nn.Module):
    """Places around the middle."""

    def __init__(self, places: TensorType) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(places.shape), requires_grad=False)

    def loss(self, places: Tensor) -> Tensor:
        return -distributions.Normal(self.mean, 1.0, validate_args=False).log_prob(places).flatten(1).sum(1).mean()

    def draw(self, num: int, rng: Rng) -> Tensor:
        return self.mean + rng.normal("places", self.mean.new_empty(num, *self.mean.shape))


def learn(places: TensorType) -> Standard:
    """Places around their mean, which is learned."""
    return Standard(places).requires_grad_(True)


class Places:
    """The field `places` as a vector; it is drawn near the middle."""

    def __init__(self, fields: dict[str, TensorType]) -> None:
        if "places" not in fields:
            raise ValueError(f"Places expects a field `places`, got {list(fields)}")
        place = fields["places"]
        self.reads, self.shape, self.type = ("places",), place.shape, CondType(vector=place.numel)

    def __call__(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        return Cond(vector=fields["places"].flatten(1))

    def null(self, num: int) -> Cond:
        return Cond(vector=torch.zeros(num, *self.shape).flatten(1))

    def draw(self, num: int, rng: Rng) -> dict[str, Tensor]:
        return {"places": rng.uniform("places", torch.empty(num, *self.shape)) - 0.5}

    def prepare(self, batches: Iterable[Batch]) -> None: ...


class Stage(Model):
    """Paints what stands where a layout says.

    Args:
        layout: Where things are.
        network: Paints them on a blank sample.
        conditioner: The places as a condition of the network.
    """

    def __init__(
        self,
        x: TensorType,
        fields: Mapping[str, TensorType] = {},
        *,
        layout: Slot[Layout] = kinds.default("scenes/standard"),
        network: Slot[kinds.Network] = kinds.default("mlp"),
        conditioner: Slot[kinds.Conditioner] = kinds.default("scenes/places"),
    ) -> None:
        super().__init__()
        self.event, self.conditioner = x, conditioner(fields=dict(fields))
        self.reads, self.layout = self.conditioner.reads, layout(places=fields["places"])
        self.network = network(x=x, out=TensorType(x.shape), cond=self.conditioner.type)

    def players(self) -> tuple[Player, ...]:
        return (Player("stage", self.list_modules("layout", "network")),)

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        error = (batch.tensor - self.paint(batch.fields)).flatten(1)
        return {"layout": self.layout.loss(batch.fields["places"]), "painting": error.square().sum(1).mean() / 2}

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        return self.paint(fields or {"places": self.layout.draw(num, rng)}).clamp(-1, 1)

    def paint(self, fields: Mapping[str, Tensor]) -> Tensor:
        blank = self.allocate(len(fields["places"]), self.single).zero_()
        return torch.as_tensor(self.network(blank, self.conditioner(fields, None)))


class Blobs:
    """A bright blob on 8×8 pixels, and its place in [-1, 1]^2."""

    x, levels, key = TensorType((1, 8, 8), range=(-1.0, 1.0)), None, "blobs 1"
    fields, splits = {"places": TensorType((2,), range=(-1.0, 1.0))}, {"train": 512, "test": 64}

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        places = 2 * torch.stack([Rng(0, split, index).uniform("place", torch.empty(2)) for index in indices]) - 1
        y, x = (torch.linspace(-1, 1, 8) - places[..., None]).square().unbind(1)
        return Batch(2 * torch.exp(-4 * (y[:, None, :, None] + x[:, None, None])) - 1, {"places": places})
