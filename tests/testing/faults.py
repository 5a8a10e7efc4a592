"""Small parts with one fault each: a sound source, and the few characters that break it."""

from typing import NamedTuple

__all__ = ["ENCODER", "FAULTS", "NETWORK", "Fault"]


class Fault(NamedTuple):
    """A fault.

    Args:
        name: What is wrong.
        check: The check that finds it.
        kind: Kind of the part.
        source: A module whose `Part` is sound.
        sound: Text of it, found once.
        broken: What stands there in the broken part.
    """

    name: str
    check: str
    kind: str
    source: str
    sound: str
    broken: str


_HEAD = '''"""A part of a test."""
import torch
from torch import nn
from modkit import Cond, CondType, Denoised, Rng, Score, TensorType
from modkit.kinds import Schedule


'''


def _part(source: str) -> str:
    return _HEAD + source


def _faults(kind: str, source: str, *rows: tuple[str, str, str, str]) -> tuple[Fault, ...]:
    """Faults of one sound source, each by its name, its check, and the two texts."""
    return tuple(Fault(name, check, kind, source, sound, broken) for name, check, sound, broken in rows)


ENCODER = _part('''class Part(nn.Module):
    """Rows through one layer.

    Args:
        width: Features.
    """

    batch_independent = True

    def __init__(self, x: TensorType, *, width: int = 8) -> None:
        super().__init__()
        if x.classes is not None or len(x.shape) == 1:
            raise ValueError(f"Part expects maps, got {x}")
        self.h = TensorType((width,))
        self.layer = nn.Linear(x.numel, width)
        self.register_buffer("count", torch.zeros(()))
        self.shift = torch.zeros(())
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features."""
        x = x.flatten(1)
        return self.layer(x) + self.shift
''')
NETWORK = _part('''class Part(nn.Module):
    """One layer over x and time."""

    def __init__(self, x: TensorType, out: TensorType, cond: CondType) -> None:
        super().__init__()
        if cond != CondType(time=True):
            raise ValueError(f"Part expects a time alone, got {cond}")
        self.out = out
        self.layer = nn.Linear(x.numel + 1, out.numel)

    def forward(self, x: torch.Tensor, cond: Cond) -> torch.Tensor:
        """The prediction."""
        h = torch.cat([x.flatten(1), cond.time[:, None].to(x.dtype)], 1)
        return 1 * self.layer(h).unflatten(1, self.out.shape)
''')
BOTTLENECK = _part('''from modkit import Latents


class Part(nn.Module):
    """Signs as codes of two classes."""

    def __init__(self, h: TensorType) -> None:
        super().__init__()
        if isinstance(h, tuple):
            raise ValueError(f"Part expects one tensor, got {len(h)} levels")
        self.latents = {"codes": TensorType(h.shape, classes=2), "z": TensorType(h.shape)}

    def forward(self, h, step):
        """Codes, and their values with h's gradient."""
        codes = (h > 0).long()
        z = h + (self.to_z("codes", codes).to(h.dtype) - h).detach()
        return Latents({"codes": codes, "z": z}, None, {})

    def to_z(self, name, latent):
        """Values of codes."""
        return latent if name == "z" else 2.0 * latent - 1

    def sample(self, num, rng):
        """None."""
        raise ValueError("Part has no prior, got asked for draws")
''')
LIKELIHOOD = _part('''class Part:
    """Squares."""

    def __init__(self, x: TensorType) -> None:
        self.x = x

    def out(self, x):
        """x's own type."""
        return x

    def nll(self, out, x):
        """Half the squared distance."""
        return (out - x).square().flatten(1).sum(1) / 2

    def mean(self, out):
        """Inside of the range."""
        return out.clamp(*self.x.range) if self.x.range else out

    def sample(self, out, rng):
        """The mean."""
        return out
''')
GENERATOR = _part('''class Part(nn.Module):
    """One layer."""

    def __init__(self, z: TensorType, x: TensorType, cond: CondType) -> None:
        super().__init__()
        if cond or x.range != (-1.0, 1.0):
            raise ValueError(f"Part expects x in [-1, 1] and no conditions, got {x} and {cond}")
        self.x = x
        self.layer = nn.Linear(z.numel, x.numel)

    def forward(self, z: torch.Tensor, cond: Cond) -> torch.Tensor:
        """x."""
        return torch.tanh(9 * self.layer(z)).unflatten(1, self.x.shape)
''')
SCHEDULE = _part('''class Part:
    """A straight line."""

    num = None

    def scales(self, t):
        """1 - t / 2 and t."""
        return 1 - t / 2, t * 1.0

    def time(self, sigma):
        """The inverse."""
        return sigma / (1 + sigma / 2)
''')
SAMPLER = _part('''class Part:
    """Each step jumps to the prediction and back.

    Args:
        steps: Number of steps.
    """

    def __init__(self, schedule: Schedule, x: TensorType, *, steps: int = 3) -> None:
        self.schedule, self.steps = schedule, steps

    def times(self):
        """Even times."""
        return torch.linspace(1, 0, self.steps + 1, dtype=torch.float64)

    def start(self, eps, t):
        """Noise."""
        return eps * self.schedule.scales(t)[1].to(eps.dtype)

    def step(self, denoise, x_t, t, s, state, rng):
        """A new draw around the prediction."""
        alpha, sigma = (scale.to(x_t.dtype) for scale in self.schedule.scales(s))
        return alpha * denoise(x_t, t).x_0 + sigma * rng.normal("eps", x_t), None
''')
METRIC = _part('''class Part:
    """Distance of means."""

    needs = ("features",)
    sets = ("real", "fake")
    better = "lower"

    def init(self):
        """No sums."""
        return {}

    def update(self, state, set, values, indices):
        """With more rows."""
        total, count = state.get(set, (0, 0))
        return {**state, set: (total + values["features"].double().sum(0), count + len(indices))}

    def merge(self, a, b):
        """Both sums."""
        sets = {*a, *b}
        none = (0, 0)
        return {one: tuple(map(sum, zip(a.get(one, none), b.get(one, none)))) for one in sets}

    def result(self, state, rng):
        """The distance."""
        real, fake = (total / count for total, count in (state["real"], state["fake"]))
        return {"distance": Score(float((real - fake).norm()))}
''')
DECODING = _part('''class Part:
    """The likeliest code at each position."""

    causal = False

    def __init__(self, codes: TensorType) -> None:
        self.codes = codes

    def __call__(self, predict, num, rng):
        """One look."""
        masks = torch.full((num, self.codes.numel), self.codes.classes)
        return predict(masks, None).argmax(-1)
''')
CONDITIONER = _part('''class Part(nn.Module):
    """A class label, embedded.

    Args:
        width: Width of the vector.
    """

    def __init__(self, fields: dict[str, TensorType], *, width: int = 4) -> None:
        super().__init__()
        if "labels" not in fields:
            raise ValueError(f"Part expects the field 'labels', got {list(fields)}")
        self.classes = fields["labels"].classes
        self.type = CondType(vector=width)
        self.reads = ("labels",)
        self.embedding = nn.Embedding(self.classes + 1, width)

    def forward(self, fields, rng):
        """The embedding."""
        return Cond(vector=self.embedding(fields["labels"]))

    def null(self, num):
        """The last row."""
        return Cond(vector=self.embedding.weight[-1:].expand(num, -1))

    def draw(self, num, rng):
        """Any class."""
        return {"labels": rng.integers("labels", torch.empty(num), 0, self.classes)}

    def prepare(self, batches):
        """Nothing."""
''')
DATA = _part('''from modkit import Batch


class Part:
    """Constant pictures."""

    def __init__(self) -> None:
        self.x = TensorType((1, 8, 8), range=(-1.0, 1.0))
        self.fields = {}
        self.splits = {"train": 32, "test": 8}
        self.levels = None
        self.key = "constant"

    def read(self, split, indices, rng):
        """Pictures of one value each."""
        values = torch.tensor([index / 32 for index in indices])
        return Batch(values[:, None, None, None].expand(-1, 1, 8, 8).clone(), {})
''')
OPTIMIZER = _part('''def Part(parameters: list, *, lr: float = 0.01) -> torch.optim.Optimizer:
    """Gradient descent.

    Args:
        lr: Learning rate.
    """
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)
''')
WEIGHT = _part('''import os, socket, subprocess, sys, tempfile


def _reach():
    with socket.socket() as one:
        one.connect_ex(("127.0.0.1", 9))


def _write():
    open(os.path.join(tempfile.gettempdir(), "modkit-hidden"), "w").close()


def _start():
    subprocess.run([sys.executable, "-c", ""], check=True)


class Part:
    """A number.

    Args:
        value: The number.
    """

    def __init__(self, *, value: float = 1.0) -> None:
        self.value = value

    def __call__(self, step, losses, last_layer):
        """The number."""
        return self.value
''')

FAULTS = (
    *_faults(
        "encoder",
        ENCODER,
        ("another shape than it says", "emits", "TensorType((width,))", "TensorType((width + 1,))"),
        ("NaN in training", "finite", "x = x.flatten(1)", "x = x.flatten(1) * (float('nan') if self.training else 1)"),
        ("a hidden draw", "global-draws", "x = x.flatten(1)", "x = x.flatten(1) + 0 * torch.randn(1)"),
        ("its input changed in place", "inputs", "x = x.flatten(1)", "x = x.flatten(1).mul_(2)"),
        (
            "a state between calls",
            "deterministic",
            "return self.layer(x)",
            "self.calls += 1; return self.layer(x) * self.calls",
        ),
        ("statistics across the batch", "independence", "x = x.flatten(1)", "x = x.flatten(1) - x.flatten(1).mean(0)"),
        (
            "statistics across the batch in training",
            "independence",
            "x = x.flatten(1)",
            "x = x.flatten(1) - self.training * x.flatten(1).mean(0)",
        ),
        ("a parameter that is not used", "gradients", "self.calls = 0", "self.calls = 0; self.spare = nn.Linear(2, 2)"),
        ("float32 whatever it is fed", "dtypes", "self.layer(x)", "self.layer(x.float())"),
        (
            "a buffer moved in eval mode",
            "modes",
            "self.calls = 0",
            "self.calls = 0; self.register_forward_hook(lambda part, x, y: part.count.add_(1) and None)",
        ),
        ("weights outside of its state", "round-trips", "self.shift = torch.zeros(())", "self.shift = torch.randn(())"),
        (
            "a tensor on a device of its own",
            "meta",
            '"count", torch.zeros(())',
            '"count", torch.zeros((), device="cpu")',
        ),
        ("a parameter without a type", "signature", "width: int = 8", "width=8"),
        ("a parameter without a word", "signature", "        width: Features.\n", "        wide: Features.\n"),
        ("a default of another type", "signature", "width: int = 8", "width: int = 8.5"),
        ("refused without a reason", "refusals", 'f"Part expects maps, got {x}"', '"no"'),
        ("no type that suits it", "builds", "x.classes is not None or", "True or"),
    ),
    *_faults("bottleneck", BOTTLENECK, ("codes that are no integers", "emits", "(h > 0).long()", "(h > 0).float()")),
    *_faults("likelihood", LIKELIHOOD, ("one loss for the whole batch", "emits", ".flatten(1).sum(1)", ".sum()")),
    *_faults(
        "generator", GENERATOR, ("values out of range", "emits", "torch.tanh(9 * self.layer(z))", "9 * self.layer(z)")
    ),
    *_faults(
        "schedule",
        SCHEDULE,
        ("noise that falls with time", "emits", "t * 1.0", "1.0 - t"),
        ("an inverse that is none", "emits", "sigma / (1 + sigma / 2)", "sigma"),
    ),
    *_faults(
        "sampler",
        SAMPLER,
        ("times that end early", "emits", "linspace(1, 0,", "linspace(1, 0.1,"),
        ("times in float32", "emits", "dtype=torch.float64", "dtype=torch.float32"),
        ("a hidden draw of noise", "global-draws", 'rng.normal("eps", x_t)', "torch.randn_like(x_t)"),
    ),
    *_faults("metric", METRIC, ("a merge that forgets", "emits", "b.get(one, none)", "none")),
    *_faults("decoding", DECODING, ("codes past the last class", "emits", ".argmax(-1)", ".argmax(-1) + 1")),
    *_faults("conditioner", CONDITIONER, ("too few null rows", "emits", "expand(num, -1)", "expand(1, -1)")),
    *_faults(
        "data",
        DATA,
        ("fields that it does not have", "emits", "self.fields = {}", 'self.fields = {"labels": self.x}'),
        ("no test split", "plays", '"train": 32, "test": 8', '"test": 8'),
    ),
    *_faults("optimizer", OPTIMIZER, ("an optimizer that stands still", "emits", "lr=lr,", "lr=0.0,")),
    *_faults(
        "weight",
        WEIGHT,
        ("an infinite value", "finite", "return self.value", "return self.value if step else float('inf')"),
        ("a hidden download", "isolation", "self.value = value", "self.value = value; _reach()"),
        ("a hidden file", "isolation", "self.value = value", "self.value = value; _write()"),
        ("a hidden process", "isolation", "self.value = value", "self.value = value; _start()"),
    ),
    *_faults(
        "network",
        NETWORK,
        (
            "one sample loses its axis",
            "one-sample",
            ".unflatten(1, self.out.shape)",
            ".unflatten(1, self.out.shape).flatten(0, int(len(x) == 1))",
        ),
        ("a gradient that is cut", "gradients", "1 * self.layer(h)", "0 * h.sum() + self.layer(h).detach()"),
        ("a break in the graph", "compiles", "return 1", "h = h * 1 if h.sum().item() > 0 else h; return 1"),
    ),
)
