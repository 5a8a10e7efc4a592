"""New plug-ins: a distribution with one worked part, its tests, a spec that uses it, a licence and its own CI.

    modkit-acme/
      pyproject.toml README.md CHANGELOG.md LICENSE .gitignore example.yaml .github/workflows/test.yml
      modkit_acme/   __init__.py, which declares the part; the part, in a module of its kind's name; py.typed
      tests/         test_battery.py, all that a part is held to; test_KIND.py, the part's values

The part, its test and its spec are those of `modkit/starters`, the other files those of `modkit/templates/plugin`.
Nothing here imports torch.
"""

from __future__ import annotations

import keyword
import re
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from modkit.errors import suggest
from modkit.kinds import KINDS
from modkit.parts.registry import DISTRIBUTION, get_registry
from modkit.specs.spec import Spec
from modkit.specs.yaml import parse
from modkit.version import __version__

__all__ = ["STARTERS", "Starter", "new_plugin", "tree"]

_HERE = Path(__file__).parents[1]


class Starter(NamedTuple):
    """The worked part of a kind, in `modkit/starters`.

    Args:
        part: Its name in a spec.
        target: Its class or function.
        summary: One line for `modkit list`.
    """

    part: str
    target: str
    summary: str


STARTERS: dict[str, Starter] = {
    "model": Starter("gaussian", "Gaussian", "A Gaussian for each value, by gradient descent"),
    "encoder": Starter("patches", "PatchEncoder", "A linear map of each patch (Dosovitskiy et al., 2021)"),
    "bottleneck": Starter("fixed-width", "FixedWidth", "Noise of one width (Ghosh et al., 2020)"),
    "decoder": Starter("patches", "PatchDecoder", "A patch from each position (Peebles & Xie, 2023)"),
    "likelihood": Starter("fixed-gaussian", "FixedGaussian", "Gaussian of a given width (Kingma & Welling, 2014)"),
    "generator": Starter("waves", "Waves", "Sums of plane waves (Tancik et al., 2020)"),
    "discriminator": Starter("prototypes", "Prototypes", "Near to prototypes is real (Snell et al., 2017)"),
    "network": Starter("gated", "Gated", "One hidden layer, gated by conditions (Perez et al., 2018)"),
    "prior-network": Starter("bag", "Bag", "The mean of the codes before (Mikolov et al., 2013)"),
    "decoding": Starter("min-p", "MinP", "Of codes that are likely enough (Nguyen et al., 2024)"),
    "schedule": Starter("rotation", "Rotation", "From data to noise at an even speed (Lu & Song, 2024)"),
    "times": Starter("logit-normal", "LogitNormal", "Mostly the middle (Esser et al., 2024)"),
    "parametrization": Starter("flow", "Flow", "Predicts eps - x_0 (Liu et al., 2023)"),
    "loss-weight": Starter("p2", "P2", "Weighs down what is nearly clean (Choi et al., 2022)"),
    "sampler": Starter("euler", "Euler", "Euler's method on the probability flow (Karras et al., 2022)"),
    "guidance": Starter("interval", "Interval", "Classifier-free, at some times only (Kynkäänniemi et al., 2024)"),
    "conditioner": Starter("one-hot", "OneHot", "A class label as it is (Mirza & Osindero, 2014)"),
    "adversarial": Starter("least-squares", "LeastSquares", "Least squares (Mao et al., 2017)"),
    "regularizer": Starter("lipschitz", "Lipschitz", "Penalty on a steep critic (Petzka et al., 2018)"),
    "weight": Starter("cyclic", "Cyclic", "Rises again and again (Fu et al., 2019)"),
    "data": Starter("checkerboard", "Checkerboard", "Points on every second square (Durkan et al., 2019)"),
    "corruption": Starter("lost-pixels", "LostPixels", "Positions hidden at random (Bora et al., 2018)"),
    "features": Starter("spectrum", "Spectrum", "Power at each frequency (Durall et al., 2020)"),
    "metric": Starter("mean-gap", "MeanGap", "Distance of the means (Gretton et al., 2012)"),
    "optimizer": Starter("lion", "Lion", "Signs of averaged gradients (Chen et al., 2023)"),
    "lr-schedule": Starter("inverse-sqrt", "inverse_sqrt", "Rises, then falls with the root (Vaswani et al., 2017)"),
    "logger": Starter("table", "Table", "Losses as comma-separated values"),
    "engine": Starter("careful", "Careful", "Skips steps that are not finite (Micikevicius et al., 2018)"),
}
"""A worked part a kind."""

_FILES = {
    ".github/workflows/test.yml": "workflow.yml",
    ".gitignore": "gitignore",
    "CHANGELOG.md": "CHANGELOG.md",
    "LICENSE": "LICENSE",
    "README.md": "README.md",
    "pyproject.toml": "pyproject.toml",
    "@package@/__init__.py": "declaration.txt",
    "tests/test_battery.py": "battery.txt",
}


def new_plugin(name: str, kind: str = "sampler", out: str | Path | None = None) -> Path:
    """Writes a new plug-in and returns its folder.

    Args:
        name: Its name, which goes before its parts' (`acme/euler`); the distribution is called `modkit-NAME`.
        kind: The kind of its part.
        out: Its folder, which is not there yet or empty; `modkit-NAME` where not given.

    Raises:
        ValueError: If the name is no name for a plug-in or taken, there is no such kind, or the folder holds something.
    """
    files = tree(name, kind)
    folder = Path(out if out is not None else f"modkit-{name}")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"new-plugin expects a folder that is new or empty, got the file {folder}")
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"new-plugin expects a folder that is new or empty, got {folder}, which holds something")
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def tree(name: str, kind: str) -> dict[str, str]:
    """The files of a new plug-in by their path in it.

    Raises:
        ValueError: If the name is no name for a plug-in or taken, or there is no such kind.
    """
    _check_name(name)
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}{suggest(kind, KINDS, '; ')}; there are: {', '.join(sorted(KINDS))}")
    starter, module = STARTERS[kind], kind.replace("-", "_")
    major, minor = __version__.split(".")[:2]
    words = {
        "plugin": name,
        "package": f"modkit_{name.replace('-', '_')}",
        "distribution": f"modkit-{name}",
        "requirement": f"{DISTRIBUTION}>={major}.{minor},<{int(major) + 1}",
        "kind": kind,
        "module": module,
        "part": starter.part,
        "class": starter.target,
        "summary": starter.summary,
    }
    files = {path: (_HERE / "templates" / "plugin" / source).read_text("utf-8") for path, source in _FILES.items()}
    files["@package@/@module@.py"] = _starter(f"{module}.py")
    files["@package@/py.typed"] = ""
    files["tests/test_@module@.py"] = _tests(starter.target).replace("modkit.starters.", "@package@.")
    files["example.yaml"] = _example(kind).replace("acme", "@plugin@")
    return {_filled(path, words): _filled(text, words) for path, text in sorted(files.items())}


def _starter(name: str) -> str:
    return (_HERE / "starters" / name).read_text("utf-8")


def _tests(target: str) -> str:
    """The tests that build a part, under those of the file's imports that they use."""
    header, *tests = _starter("test_values.py").rstrip("\n").split("\n\n\n")
    tests = [test for test in tests if re.search(rf"\b{target}\(", test)]
    blocks = ['"""Values of the @kind@ `@plugin@/@part@`."""']
    for block in header.split("\n\n")[1:]:
        lines = []
        for statement, _, names in (line.rpartition("import ") for line in block.split("\n")):
            used = [name for name in names.split(", ") if re.search(rf"(?<![.\w]){name}\b", "".join(tests))]
            lines += [f"{statement}import {', '.join(used)}"] if used else []
        blocks += ["\n".join(lines)] if lines else []
    return "\n\n\n".join(["\n\n".join(blocks), *tests]) + "\n"


def _example(kind: str) -> str:
    """The spec that uses the part of a kind: its host, changed."""
    table: Any = parse(_starter("examples.yaml"), "examples.yaml")[0]
    changes = table["examples"][kind]
    spec = Spec(name="acme", **table["hosts"][changes.pop("host")])
    for path, value in changes.items():
        spec = spec.with_value(path, value)
    return spec.to_yaml()


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub(f"@({'|'.join(words)})@", lambda match: words[match[1]], text)


def _check_name(name: str) -> None:
    distribution = f"modkit-{name}"
    if name.startswith("modkit-"):
        raise ValueError(f"new-plugin expects a name without the prefix modkit-, which it adds, got {name!r}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(name):
        expected = "small letters and digits, a letter first, words joined by single hyphens, no keyword of Python's"
        raise ValueError(f"new-plugin expects a name of {expected}, got {name!r}")
    if name == "modkit":
        raise ValueError("new-plugin expects a name of the plug-in's own, got 'modkit'")
    for plugin in get_registry().plugins:
        if plugin.name == name:
            raise ValueError(
                f"new-plugin expects a name that is free, got {name!r}, a plug-in of {plugin.distribution}"
            )
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return
    raise ValueError(f"new-plugin expects a name that is free, got {name!r}: {distribution} {version} is installed")
