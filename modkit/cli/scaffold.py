"""New plug-ins: a distribution with one example part, its tests, a spec that uses it, a licence and its own CI.

    modkit-acme/
      pyproject.toml README.md CHANGELOG.md LICENSE .gitignore example.yaml .github/workflows/test.yml
      modkit_acme/   __init__.py declares the part; a module named after its kind holds it; py.typed
      tests/         test_battery.py runs the conformance battery, test_KIND.py checks the part's values

The part, its tests and its spec come from `modkit/starters`, the other files from `modkit/templates/plugin`. A plug-in
gets a further part as files beside its own, and as an entry in its hook's list. This module imports no torch.
"""

from __future__ import annotations

import ast
import keyword
import re
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from modkit.cli.declaration import declare_part
from modkit.parts.registry import DISTRIBUTION, find_kind, get_registry
from modkit.runs.files import replace_file
from modkit.specs.spec import Spec
from modkit.specs.yaml import parse
from modkit.version import __version__

__all__ = ["STARTERS", "Starter", "add_part", "create_plugin", "find_plugin", "make_files"]

_HERE = Path(__file__).parents[1]


class Starter(NamedTuple):
    """The example part of a kind, in `modkit/starters`.

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
    "bottleneck": Starter("fixed-width", "FixedWidth", "Noise with a fixed standard deviation (Ghosh et al., 2020)"),
    "decoder": Starter("patches", "PatchDecoder", "One patch for each position (Peebles & Xie, 2023)"),
    "likelihood": Starter(
        "fixed-gaussian", "FixedGaussian", "Gaussian with a fixed standard deviation (Kingma & Welling, 2014)"
    ),
    "rate": Starter("target", "Target", "The KL held to a number of nats (Alemi et al., 2018)"),
    "aggregate": Starter("energy", "Energy", "Energy distance from the prior (Székely & Rizzo, 2013)"),
    "bijection": Starter("sinh-arcsinh", "SinhArcsinh", "Skew and tails of each value (Jones & Pewsey, 2009)"),
    "generator": Starter("waves", "Waves", "Sums of plane waves (Tancik et al., 2020)"),
    "discriminator": Starter("prototypes", "Prototypes", "Real if near a prototype (Snell et al., 2017)"),
    "network": Starter("gated", "Gated", "One hidden layer, gated by conditions (Perez et al., 2018)"),
    "prior-network": Starter("bag", "Bag", "The mean of earlier codes (Mikolov et al., 2013)"),
    "decoding": Starter("min-p", "MinP", "Draws codes that are likely enough (Nguyen et al., 2024)"),
    "schedule": Starter("rotation", "Rotation", "From data to noise at constant speed (Lu & Song, 2024)"),
    "times": Starter("logit-normal", "LogitNormal", "Mostly intermediate times (Esser et al., 2024)"),
    "coupling": Starter("nearest", "Nearest", "The nearest of a few draws (Li et al., 2025)"),
    "alignment": Starter("supervised", "Supervised", "A linear layer predicts x_0 (Lee et al., 2015)"),
    "parametrization": Starter("flow", "Flow", "Predicts eps - x_0 (Liu et al., 2023)"),
    "loss-weight": Starter("p2", "P2", "Less weight at low noise (Choi et al., 2022)"),
    "grid": Starter("power", "Power", "More steps where there are data (Song et al., 2021)"),
    "sampler": Starter("euler", "Euler", "Euler's method on the probability flow (Karras et al., 2022)"),
    "guidance": Starter("interval", "Interval", "Classifier-free, at some times only (Kynkäänniemi et al., 2024)"),
    "conditioner": Starter("one-hot", "OneHot", "One-hot class labels (Mirza & Osindero, 2014)"),
    "adversarial": Starter("least-squares", "LeastSquares", "Least squares (Mao et al., 2017)"),
    "augmentation": Starter("instance-noise", "InstanceNoise", "Noise on what is judged (Sønderby et al., 2017)"),
    "regularizer": Starter("lipschitz", "Lipschitz", "Penalty on a steep critic (Petzka et al., 2018)"),
    "weight": Starter("cyclic", "Cyclic", "Rises periodically (Fu et al., 2019)"),
    "data": Starter("checkerboard", "Checkerboard", "Points on every second square (Durkan et al., 2019)"),
    "corruption": Starter("lost-pixels", "LostPixels", "Hides random positions (Bora et al., 2018)"),
    "features": Starter("spectrum", "Spectrum", "Power at each frequency (Durall et al., 2020)"),
    "metric": Starter("mean-gap", "MeanGap", "Distance between the means (Gretton et al., 2012)"),
    "optimizer": Starter("lion", "Lion", "Signs of averaged gradients (Chen et al., 2023)"),
    "lr-schedule": Starter("inverse-sqrt", "inverse_sqrt", "Rises, then falls with the root (Vaswani et al., 2017)"),
    "logger": Starter("table", "Table", "Losses as comma-separated values"),
    "engine": Starter("careful", "Careful", "Skips steps that are not finite (Micikevicius et al., 2018)"),
}
"""One example part for each kind."""

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


def create_plugin(name: str, kind: str = "sampler", out: str | Path | None = None) -> Path:
    """Creates a new plug-in and returns its folder.

    Args:
        name: Its name, the prefix of its parts' names (`acme/euler`); the distribution is called `modkit-NAME`.
        kind: The kind of its part.
        out: Its folder, absent or empty; `modkit-NAME` by default.

    Raises:
        ValueError: If the name is invalid or taken, there is no such kind, or the folder is not empty.
    """
    files = make_files(name, kind)
    folder = Path(out if out is not None else f"modkit-{name}")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"new-plugin expects a folder that is new or empty, got the file {folder}")
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"new-plugin expects a folder that is new or empty, got {folder}, which is not empty")
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def find_plugin(name: str, out: str | Path | None = None) -> Path | None:
    """Finds the folder of an existing plug-in: `out`, or the working folder, or `modkit-NAME` in it; None if it is new.

    A folder is a plug-in's if its `pyproject.toml` declares an entry point of this name in the group `modkit`.
    """
    places = [Path(out)] if out is not None else [Path(), Path(f"modkit-{name}")]
    return next((folder for folder in places if _find_target(folder, name)), None)


def add_part(folder: Path, name: str, kind: str) -> list[Path]:
    """Adds a part to the plug-in in a folder, and returns the files that were written; the last is the changed one.

    The part's module, test and spec are new files. The list that the hook `modkit_parts` returns gets one more entry;
    nothing else is changed.

    Raises:
        ValueError: If there is no such kind, a file of the part exists already, or the part cannot be declared; nothing
            has been written then.
    """
    _check_kind(kind)
    package = _find_target(folder, name)
    inside = package.replace(".", "/")
    places = [place for place in (folder / inside, folder / "src" / inside) if (place / "__init__.py").is_file()]
    if not places:
        raise ValueError(f"new-plugin expects the package {package} of {name} in {folder}, got no {inside}/__init__.py")
    place = places[0]
    words = _make_words(name, kind, package)
    made = {_fill(path, words): _fill(text, words) for path, text in _make_part(kind).items()}
    homes = {f"{package}/": place, "tests/": folder / "tests", "": folder}
    files: dict[Path, str] = {}
    for path, text in made.items():
        start = next(start for start in homes if path.startswith(start))
        files[homes[start] / path.removeprefix(start)] = text
    if found := [str(path) for path in files if path.exists()]:
        raise ValueError(f"new-plugin adds a {kind} in new files, got {', '.join(found)} already: rename what is there")
    hook, starter = place / "__init__.py", STARTERS[kind]
    target = f"{package}.{words['module']}:{starter.target}"
    try:
        declared = declare_part(hook.read_bytes().decode(), (kind, starter.part, target, starter.summary))
    except ValueError as error:
        raise ValueError(f"new-plugin cannot declare a part in {hook}: {error}") from error
    for new, text in files.items():
        new.parent.mkdir(exist_ok=True)
        new.write_text(text, encoding="utf-8")
    replace_file(hook, declared.encode())
    return [*files, hook]


def make_files(name: str, kind: str) -> dict[str, str]:
    """Makes the files of a new plug-in, by their path in its folder.

    Raises:
        ValueError: If the name is invalid or taken, or there is no such kind.
    """
    _check_name(name)
    _check_kind(kind)
    words = _make_words(name, kind, f"modkit_{name.replace('-', '_')}")
    files = {path: (_HERE / "templates" / "plugin" / source).read_text("utf-8") for path, source in _FILES.items()}
    files["@package@/py.typed"] = ""
    part = _make_part(kind)
    files |= {"example.yaml": part.pop("example-@kind@.yaml"), **part}
    return {_fill(path, words): _fill(text, words) for path, text in sorted(files.items())}


def _check_kind(kind: str) -> None:
    if kind not in STARTERS:
        module = find_kind(kind).target.partition(":")[0]
        raise ValueError(f"new-plugin has example parts of modkit's kinds only, got {kind}: start from {module}")


def _find_target(folder: Path, name: str) -> str:
    """Finds the target of an entry point in a `pyproject.toml`'s group `modkit`; empty if there is none."""
    path, section = folder / "pyproject.toml", ""
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        before = line.partition("#")[0].strip()
        key, sign, value = (word.strip(" \"'") for word in before.partition("="))
        if before.startswith("["):
            section = before.replace('"', "")
        elif section == "[project.entry-points.modkit]" and sign and key == name:
            return value
    return ""


def _make_part(kind: str) -> dict[str, str]:
    """Makes the files of a kind's part, with blanks for the plug-in's names: its module, its tests and its spec."""
    module = f"{kind.replace('-', '_')}.py"
    return {
        "@package@/@module@.py": _read_starter(module),
        "tests/test_@module@.py": _make_tests(STARTERS[kind].target).replace("modkit.starters.", "@package@."),
        "example-@kind@.yaml": _make_example(kind).replace("acme", "@plugin@"),
    }


def _make_words(name: str, kind: str, package: str) -> dict[str, str]:
    """Makes what fills the blanks of a plug-in's files."""
    starter = STARTERS[kind]
    major, minor = __version__.split(".")[:2]
    return {
        "plugin": name,
        "package": package,
        "distribution": f"modkit-{name}",
        "requirement": f"{DISTRIBUTION}>={major}.{minor},<{int(major) + 1}",
        "kind": kind,
        "module": kind.replace("-", "_"),
        "part": starter.part,
        "class": starter.target,
        "summary": starter.summary,
    }


def _read_starter(name: str) -> str:
    return (_HERE / "starters" / name).read_text("utf-8")


def _make_tests(target: str) -> str:
    """Selects the tests that build a part, and the imports that these tests use."""
    header, *tests = _read_starter("test_values.py").rstrip("\n").split("\n\n\n")
    tests = [test for test in tests if re.search(rf"\b{target}\(", test)]
    names_used = {node.id for node in ast.walk(ast.parse("\n".join(tests))) if isinstance(node, ast.Name)}
    blocks = ['"""Values of the @kind@ `@plugin@/@part@`."""']
    for block in header.split("\n\n")[1:]:
        lines = []
        for statement, _, names in (line.rpartition("import ") for line in block.split("\n")):
            used = [name for name in names.split(", ") if name in names_used]
            lines += [f"{statement}import {', '.join(used)}"] if used else []
        blocks += ["\n".join(lines)] if lines else []
    return "\n\n\n".join(["\n\n".join(blocks), *tests]) + "\n"


def _make_example(kind: str) -> str:
    """Makes the spec that uses the part of a kind: its host with some values replaced."""
    table: Any = parse(_read_starter("examples.yaml"), "examples.yaml")[0]
    changes = table["examples"][kind]
    spec = Spec(name="acme", **table["hosts"][changes.pop("host")])
    for path, value in changes.items():
        spec = spec.with_value(path, value)
    return spec.to_yaml()


def _fill(text: str, words: dict[str, str]) -> str:
    return re.sub(f"@({'|'.join(words)})@", lambda match: words[match[1]], text)


def _check_name(name: str) -> None:
    distribution = f"modkit-{name}"
    if name.startswith("modkit-"):
        raise ValueError(f"new-plugin expects a name without the prefix modkit-, which it adds, got {name!r}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(name):
        rules = "lower-case letters, digits and single hyphens, a letter first, no Python keyword"
        raise ValueError(f"new-plugin expects a name of {rules}, got {name!r}")
    if parse(name)[0] != name:
        raise ValueError(f"new-plugin expects a name that YAML reads as a string, got {name!r}")
    if name == "modkit":
        raise ValueError("new-plugin expects a name other than that of modkit itself, got 'modkit'")
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
