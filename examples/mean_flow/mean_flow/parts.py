r"""MeanFlow: a network learns the average velocity between two times, so that one evaluation goes from noise to data.

    z_t = (1 - t) x + t eps,   v = eps - x,   0 <= r <= t <= 1
    u(z_t, r, t) = 1 / (t - r) int_r^t v(z_s, s) ds                                  (3)
    u = v - (t - r) du/dt,   du/dt = v d_z u + d_t u                                 (6, 8)
    loss  w |u - sg(v - (t - r) du/dt)|^2,   w = sg(|.|^2 + 1e-3)^-p                 (9 to 11, section 4.3)
    z_r = z_t - (t - r) u(z_t, r, t)                                                 (12)

du/dt is a Jacobian-vector product, computed together with u. The network is told t and t - r (Mean Flows for One-step
Generative Modeling, Geng et al., 2025, https://arxiv.org/abs/2505.13447). Shape letters: b batch.
"""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

from modkit import Batch, Cond, Model, Player, Rng, Slot, Step, TensorType, kinds
from modkit.kinds import default
from modkit.samplers import draw_start
from modkit.types import CondType


class MeanFlow(Model):
    """A network of two times, and samples by few evaluations of it.

    Args:
        network: Computes the average velocity.
        conditioner: Computes conditions from fields; it is trained with the network.
        same: Share of samples with r = t, in [0, 1], for which the loss is that of flow matching.
        mean: Mean of the normal draws whose sigmoids are the times; the larger of two is t.
        std: Standard deviation of these draws.
        power: p, the power of a sample's mean square by which it is divided: 0 leaves the mean square as it is.
        steps: Number of evaluations for a sample.
    """

    def __init__(
        self,
        x: TensorType,
        cond: CondType = CondType(),
        fields: Mapping[str, TensorType] = {},
        *,
        network: Slot[kinds.Network] = default("mlp"),
        conditioner: Slot[kinds.Conditioner] = default("none"),
        same: float = 0.75,
        mean: float = -0.4,
        std: float = 1.0,
        power: float = 1.0,
        steps: int = 1,
    ) -> None:
        super().__init__()
        if reason := self.accepts(x):
            raise ValueError(reason)
        if not 0 <= same <= 1 or std <= 0 or power < 0 or steps < 1:
            expected = "same in [0, 1], std above 0, power of at least 0 and steps of at least 1"
            raise ValueError(f"MeanFlow expects {expected}, got {same}, {std}, {power} and {steps}")
        self.event, self.same, self.mean, self.std, self.power, self.steps = x, same, mean, std, power, steps
        self.noise = self.start_noise = TensorType(x.shape, std=1.0)
        self.sources = {"noise": self.noise}
        self.conditioner = conditioner(fields=dict(fields))
        self.reads = self.conditioner.reads
        given = cond.merge(self.conditioner.type)
        self.network = network(x=x, out=TensorType(x.shape), cond=given.merge(CondType(time=2)))

    def players(self) -> tuple[Player, ...]:
        """`flow`."""
        return (Player("flow", self.list_modules("network", "conditioner")),)

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes `velocity`, the weighted square of the error."""
        x, rng = batch.tensor.to(self.allocate(0, self.noise).dtype), step.rng  # autocast may have narrowed a latent
        cond = self.conditioner(batch.fields, rng.at("conditioner")).merge(batch.cond)
        error = self.compute_error(x, rng.normal("eps", x), *self.draw_times(x, rng), cond)
        squares = error.square().flatten(1).mean(1)
        return {"velocity": (squares / (squares.detach() + 1e-3) ** self.power).mean()}

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Steps from noise to samples; the conditioner draws missing fields."""
        cond = self.conditioner(self.complete(num, fields, rng), None).merge(cond)
        z = draw_start(rng, "start", self.allocate(num, self.noise))
        for t, r in pairwise(torch.linspace(1, 0, self.steps + 1).tolist()):
            z = z - (t - r) * self.predict(z, z.new_full((num,), r), z.new_full((num,), t), cond)
        return z if self.single.range is None else z.clamp(*self.single.range)

    def predict(self, z: Tensor, r: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """Computes u(z, r, t), of the shape of `z`, `b ...`; the times are `b`."""
        return self.network(z, cond.at(torch.stack([t, t - r], dim=1)))

    def draw_times(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """Draws r and t, `b` each; they are equal in a share of samples."""
        drawn = torch.sigmoid(self.mean + self.std * rng.normal("times", x.new_empty(len(x), 2)))
        r, t = drawn.amin(1), drawn.amax(1)
        return torch.where(rng.uniform("same", t) < self.same, t, r), t

    def compute_error(self, x: Tensor, eps: Tensor, r: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """Computes how far u is from its target, `b ...`; no gradients flow through the target.

        Autocast would narrow weights but not the tangents of what they are multiplied with, so networks run without it.
        """
        times, span = (time.view(-1, *[1] * (x.ndim - 1)) for time in (t, t - r))
        z, v = (1 - times) * x + times * eps, eps - x

        def predict(z: Tensor, t: Tensor) -> Tensor:
            return self.predict(z, r, t, cond)

        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            u, slope = torch.func.jvp(predict, (z, t), (v, torch.ones_like(t)))[:2]
        return u - (v - span * slope).detach()
