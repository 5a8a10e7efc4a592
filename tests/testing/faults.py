"""The parts of `modkit new-plugin` with one fault each, the few characters that break a sound source, and plug-ins."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import modkit.starters
from modkit.cli.scaffold import find_starter

__all__ = ["FAULTS", "MISDECLARED", "Fault", "read_source"]


def read_source(kind: str) -> str:
    """The source of a kind's starter."""
    return Path(modkit.starters.__file__).with_name(f"{kind.replace('-', '_')}.py").read_text()


class Fault(NamedTuple):
    """A fault.

    Args:
        kind: Kind of the part.
        name: What is wrong.
        check: The check that finds it.
        sound: Text of the starter, found once.
        broken: What stands there in the broken part.
    """

    kind: str
    name: str
    check: str
    sound: str
    broken: str

    @property
    def target(self) -> str:
        """The class."""
        return find_starter(self.kind).target

    @property
    def source(self) -> str:
        """The sound source."""
        return read_source(self.kind)


_BUILT = "self.project = nn.Conv2d(x.shape[0], channels, patch, stride=patch)"
_CALLED = "self.project(x)"
_POSTERIOR = 'step.rng.normal("posterior", h)'
_SAMPLE = "def sample(self, num: int, rng: Rng) -> Tensor:"
_SOCKET = '__import__("socket").getaddrinfo("127.0.0.1", 9)'
_FILE = 'open(__import__("tempfile").gettempdir() + "/modkit-hidden", "w").close()'
_PROCESS = '__import__("subprocess").run(["true"])'
_SET = "self.value, self.period, self.rise = value, period, rise"
_HIDDEN = "F.silu(self.hidden(x.flatten(1))) * gate"
_GATE = "self.gate = nn.Linear(width // 4 + 4, width)"
_VIEW = "return h.view(len(h), *self.shape)"

FAULTS = tuple(
    Fault(*row)
    for row in (
        ("encoder", "another shape than it says", "emits", "TensorType((channels,", "TensorType((channels + 1,"),
        ("encoder", "NaN in training", "finite", _CALLED, f"{_CALLED} * (float('nan') if self.training else 1)"),
        ("encoder", "a hidden draw", "global-draws", _CALLED, f"{_CALLED} + 0 * x.new_empty(1).normal_()"),
        ("bottleneck", "a hidden draw in training", "global-draws", _POSTERIOR, "torch.randn_like(h)"),
        (
            "bottleneck",
            "a draw from NumPy in training",
            "global-draws",
            _POSTERIOR,
            'torch.as_tensor(__import__("numpy").random.randn(*h.shape)).to(h)',
        ),
        (
            "bottleneck",
            "a draw of no seed in training",
            "deterministic",
            _POSTERIOR,
            'h.new_tensor(__import__("numpy").random.default_rng().normal(size=h.shape))',
        ),
        (
            "bottleneck",
            "a hidden draw in its update",
            "global-draws",
            "    def to_z(",
            "    def update(self, step):\n        self.restarts = torch.randperm(4)\n\n    def to_z(",
        ),
        (
            "bottleneck",
            "a hidden draw of its prior",
            "global-draws",
            'rng.normal("prior", torch.empty(num, *self.z.shape))',
            "torch.randn(num, *self.z.shape)",
        ),
        (
            "encoder",
            "a hidden draw in the backward pass",
            "global-draws",
            _BUILT,
            f"{_BUILT}; self.register_full_backward_hook(lambda part, to, of: (to[0] + 0 * to[0].clone().normal_(),))",
        ),
        ("encoder", "its input changed in place", "inputs", _CALLED, "self.project(x.mul_(2))"),
        (
            "encoder",
            "a state between calls",
            "deterministic",
            "return features",
            'self.calls = getattr(self, "calls", 0) + 1; return features * self.calls',
        ),
        (
            "encoder",
            "a mean over training that is no buffer",
            "round-trips",
            "return features",
            "self.mean = features.detach().mean() if self.training else vars(self).get('mean', 0.0); "
            "return features + self.mean",
        ),
        ("encoder", "statistics across the batch", "independence", _CALLED, "self.project(x - x.mean(0))"),
        (
            "encoder",
            "statistics across the batch in training",
            "independence",
            _BUILT,
            f"{_BUILT}; self.batch_independent = True; "
            "self.register_forward_pre_hook(lambda part, given: given[0] - part.training * given[0].mean(0))",
        ),
        ("encoder", "a parameter that is not used", "gradients", _BUILT, f"{_BUILT}; self.spare = nn.Linear(2, 2)"),
        ("encoder", "float32 whatever it is fed", "dtypes", _CALLED, "self.project(x.float())"),
        ("encoder", "float32 whatever it returns", "dtypes", _CALLED, f"{_CALLED}.float()"),
        ("encoder", "values above 65,504 on the way", "dtypes", _CALLED, f"{_CALLED} * 1e3 * 1e3 / 1e6"),
        (
            "encoder",
            "a buffer moved in eval mode",
            "modes",
            _BUILT,
            f'{_BUILT}; self.register_buffer("count", self.project.bias.detach().sum()); '
            "self.register_forward_hook(lambda part, x, y: part.count.add_(1) and None)",
        ),
        (
            "encoder",
            "weights outside of its state",
            "round-trips",
            _BUILT,
            f"{_BUILT}; bias = self.project.bias.detach().sum(); self.register_forward_hook(lambda p, x, y: y + bias)",
        ),
        (
            "encoder",
            "a tensor on a device of its own",
            "meta",
            _BUILT,
            f'{_BUILT}; self.register_buffer("count", nn.Linear(1, 1, device="cpu").bias.detach())',
        ),
        ("encoder", "a parameter without a type", "signature", "channels: PositiveInt = 32", "channels=32"),
        ("encoder", "a parameter without a word", "signature", "        channels: Channels", "        wide: Channels"),
        (
            "encoder",
            "a default of another type",
            "signature",
            "channels: PositiveInt = 32",
            "channels: PositiveInt = 32.5",
        ),
        (
            "encoder",
            "refused without a reason",
            "refusals",
            'f"PatchEncoder expects images with sides divisible by {patch}, got {x}"',
            '"no"',
        ),
        ("encoder", "no type that suits it", "builds", "x.classes is not None or", "True or"),
        ("bottleneck", "one KL for the whole batch", "emits", ".flatten(1).sum(1)", ".sum()"),
        (
            "bottleneck",
            "a condensed latent without noise",
            "emits",
            _SAMPLE,
            f"condense = lambda self, name, h: (h,); expand = lambda self, name, x, rng: x[0]\n    {_SAMPLE}",
        ),
        ("likelihood", "one loss for the whole batch", "emits", ".flatten(1).sum(1)", ".sum()"),
        ("generator", "values out of range", "emits", "self.basis), self.x)", "self.basis), self.x) * 9"),
        ("schedule", "noise that falls with time", "emits", "t.to(torch.float64) * self", "(1.0 - t.double()) * self"),
        ("schedule", "an inverse that is none", "emits", "torch.atan(sigma.to(", "torch.tanh(sigma.to("),
        ("sampler", "times that end early", "emits", "(self, schedule, steps))", "(self, schedule, steps)[:-1])"),
        ("sampler", "times in float32", "emits", "(self, schedule, steps))", "(self, schedule, steps).float())"),
        ("sampler", "x_t changed in place", "inputs", "(x_t - alpha_t * x_0)", "x_t.sub_(alpha_t * x_0)"),
        (
            "sampler",
            "the prediction changed in place",
            "inputs",
            "return alpha_s * x_0 +",
            "return x_0.mul_(alpha_s) +",
        ),
        ("sampler", "no volumes", "emits", "return alpha_s * x_0 +", "assert x_t.ndim < 5; return alpha_s * x_0 +"),
        ("sampler", "a hidden draw of noise", "global-draws", "sigma_s * eps", "sigma_s * eps.clone().normal_()"),
        ("metric", "a merge that forgets", "emits", "_add(a[side], b[side])", "a[side]"),
        (
            "metric",
            "a merge in place",
            "emits",
            "return {side: _add(a[side], b[side]) for side in self.sets}",
            "a.update({side: _add(a[side], b[side]) for side in self.sets}); return a",
        ),
        (
            "metric",
            "a state that cannot be sent",
            "emits",
            "return {side: Sums(0, torch.zeros((), dtype=torch.float64)) for side in self.sets}",
            'return {"seen": {1}, **{side: Sums(0, torch.zeros((), dtype=torch.float64)) for side in self.sets}}',
        ),
        ("decoding", "codes past the last class", "emits", "return codes", "return codes + 9"),
        ("decoding", "codes that are no integers", "emits", "return codes", "return codes.float()"),
        ("conditioner", "too few null rows", "emits", "new_zeros(num, self.classes)", "new_zeros(1, self.classes)"),
        ("data", "fields that it does not have", "emits", 'self.fields = {"', 'self.fields = {"more": self.x, "'),
        ("data", "samples by their place in the batch", "emits", "x[rows]", "x[: len(rows)]"),
        ("data", "samples that depend on their batch", "emits", "x[rows]", "x[rows] - x[rows].mean(0)"),
        (
            "data",
            "noise by the place in the batch, of tests",
            "emits",
            "x[rows]",
            'x[rows] + (split == "test") * rng.normal("eps", x[rows])',
        ),
        ("data", "one sample at all indices", "emits", "rows = torch.as_tensor(", "rows = 0 * torch.as_tensor("),
        (
            "regularizer",
            "a crash in one of two hosts",
            "plays",
            "with torch.enable_grad():",
            "assert round.decoder or round.real.is_meta, 'no decoder'\n        with torch.enable_grad():",
        ),
        ("data", "no training split", "plays", '{"train": num, "test": num_test}', '{"test": num_test}'),
        ("optimizer", "an optimizer that stands still", "emits", '{"lr": lr,', '{"lr": 0.0,'),
        (
            "weight",
            "an infinite value",
            "finite",
            "return self.value",
            'return float("inf") if step.index == 0 else self.value',
        ),
        ("weight", "a hidden download", "isolation", _SET, f"{_SET}; {_SOCKET}"),
        ("weight", "a hidden file", "isolation", _SET, f"{_SET}; {_FILE}"),
        ("weight", "a hidden process", "isolation", _SET, f"{_SET}; {_PROCESS}"),
        ("network", "one sample loses its axis", "one-sample", _VIEW, f"{_VIEW}.flatten(0, int(len(h) == 1))"),
        ("network", "a gradient that is cut", "gradients", _HIDDEN, f"({_HIDDEN}).detach()"),
        (
            "bottleneck",
            "a latent that is cut from its features",
            "gradients",
            "else h + self",
            "else h.detach() + self",
        ),
        ("discriminator", "a gradient that is cut from x", "gradients", "(x.flatten(1))", "(x.flatten(1).detach())"),
        ("judge", "a gradient that is cut from z", "gradients", "else None)\n", "else None)\n        z = z.detach()\n"),
        ("objective", "a gradient that is cut from the KL", "gradients", "kl.sum(1)", "kl.detach().sum(1)"),
        ("regularizer", "a penalty without a graph", "gradients", ", create_graph=True", ""),
        (
            "augmentation",
            "an augmentation that cuts the gradient from x",
            "gradients",
            "return x +",
            "return x.detach() +",
        ),
        ("likelihood", "a gradient that is cut from out", "gradients", "widen(out))", "widen(out.detach()))"),
        (
            "adversarial",
            "a generator's loss without a gradient",
            "gradients",
            "return (widen(fake_logits)",
            "return (widen(fake_logits.detach())",
        ),
        (
            "network",
            "a unit used without a call",
            "units",
            _GATE,
            f"{_GATE}; self.units = [self.gate]; self.register_forward_hook(lambda n, x, y: y + n.gate.bias.sum())",
        ),
        ("network", "a break in the graph", "compiles", _VIEW, f"h = h * 1 if h.sum().item() > 0 else h; {_VIEW}"),
    )
)

_GOOD = 'Part("weight", "good", "modkit.losses.coefficients:Constant", "A number")'
_PART = 'Part("bottleneck", "thin", "modkit.bottlenecks:Identity", "A part")'

_DECLARED = {
    "a kind that does not exist": (_PART.replace('"bottleneck"', '"bottelneck"'), "did you mean 'bottleneck'"),
    "a blank in the name": (_PART.replace("thin", "thin one"), "a name without blanks"),
    "a dotted target": (_PART.replace(":", "."), "expects a target 'module.path:Name'"),
    "a name that is taken": (f"{_PART}, {_PART}", "bottleneck 'thin' is declared more than once"),
    "no part": ('"thin"', "a list of Part, got str in it"),
    "an alias that is no tuple": (_PART.replace('"A part"', '"A part", "old"'), "aliases to be a tuple"),
}
MISDECLARED = {name: (f"[{_GOOD}, {parts}]", said) for name, (parts, said) in _DECLARED.items()}
"""By what is wrong beside a good part: what a plug-in declares, and what the check `doctor` says."""
