"""The shape of the house: what may import what, and who may know of families."""

import ast
import re
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

from modkit.parts.registry import get_registry

PACKAGE = Path(__file__).parents[1] / "modkit"
FAMILY = re.compile(r"(?i)\b(vae|gan|ddpm|vqgan|ldm|ddgan|diffusion|latent|autoencoder)\b")
FAMILY_FREE = (
    "training.*", "evaluation.evaluate*", "evaluation.scoring", "evaluation.feed", "sweeps.*", "runs.*", "engines.*",
    "optim.ema", "publishing.export", "publishing.model_card", "building.session", "building.migration",
    "building.provenance", "building.graph*", "cli.app", "cli.scores", "cli.runs",
)  # fmt: skip
TORCH_FREE = (
    "version", "errors", "escapes", "blocks", "child", "types", "types.*", "part", "kinds", "kinds.*", "runs.ranks",
    "parts.*", "specs.*", "building.local", "building.pieces", "building.plan", "building.planner",
    "cli.describe", "cli.declaration", "cli.scaffold", "cli.completion",
)  # fmt: skip
LAYERS = (
    ("version", "errors", "escapes", "blocks", "child", "precision", "types", "types.*", "part"),
    ("ops", "ops.*"),
    ("rng",),
    ("kinds", "kinds.*"),
    ("runs", "runs.*", "progress"),
    ("parts", "parts.*"),
    ("specs", "specs.*"),
    ("nn", "nn.*", "optim", "optim.*", "engines", "engines.*"),
    ("augmentations", "augmentations.*"),
    ("losses", "losses.*", "data", "data.*", "diffusion", "diffusion.*", "grids", "grids.*"),
    ("samplers", "samplers.*"),
    ("decodings", "decodings.*", "features", "features.*"),
    ("models.*",),
    ("bijections", "bijections.*", "bottlenecks", "bottlenecks.*", "judges", "judges.*", "coders", "coders.*"),
    ("conditioners", "conditioners.*"),
    (
        "training.ownership",
        "training.schedule",
        "training.norms",
        "training.players",
        "evaluation.extractors",
        "evaluation.needs",
    ),
    ("building", "building.*"),
    ("models",),
    ("metrics", "metrics.*"),
    ("training.*",),
    ("evaluation", "evaluation.*"),
    ("training", "training.training", "training.train", "training.fit", "training.branch"),
    ("comparison", "comparison.*", "publishing", "publishing.*"),
    ("sweeps", "sweeps.*", "latent_space", "latent_space.*"),
    ("cases", "cases.*", "testing", "testing.*"),
    ("cli", "cli.*"),
    ("", "__main__", "pytest_plugin", "starters", "starters.*"),
)
"""What each module may import: those of rows above its own and, without a circle, of its own row."""


@cache
def read_modules():
    """Every module by its name under `modkit`, with its tree."""
    names = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if "templates" not in parts:
            names[".".join(parts).removesuffix("__init__").removesuffix(".")] = ast.parse(path.read_text())
    return names


def select(patterns):
    return [name for name in read_modules() if any(fnmatchcase(name, pattern) for pattern in patterns)]


def find_imports(tree, *, lazy=True):
    """Full names of all that a module imports; without `lazy`, leaving out functions and TYPE_CHECKING."""
    nodes, found = [tree], set()
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif not lazy and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        elif not lazy and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        nodes.extend(ast.iter_child_nodes(node))
    return found


def find_own_imports(name):
    """The modules of modkit that one of them imports, lazily and for type checkers included."""
    for full in find_imports(read_modules()[name]):
        head, _, rest = full.partition(".")
        if head == "modkit":
            yield rest if rest in read_modules() else rest.rpartition(".")[0]


def find_layers(name):
    """The rows of the table that have a module: by its own name or, if there is none, by a pattern."""
    exact = [row for row, patterns in enumerate(LAYERS) if name in patterns]
    return exact or [
        row for row, patterns in enumerate(LAYERS) if any(fnmatchcase(name, pattern) for pattern in patterns)
    ]


@cache
def read_graph():
    """The modules that each imports."""
    return {name: set(find_own_imports(name)) - {name} for name in read_modules()}


def test_every_module_has_one_place_in_the_table_of_layers():
    assert not [name for name in read_modules() if len(find_layers(name)) != 1]
    assert not [pattern for row in LAYERS for pattern in row if not select([pattern])]


def test_imports_point_one_way():
    rank = {name: find_layers(name)[0] for name in read_modules()}
    wrong = [
        f"{mine} imports {theirs}"
        for mine, imported in read_graph().items()
        for theirs in imported
        if rank[theirs] > rank[mine]
    ]
    assert not wrong


def test_no_circle():
    done, trail = set(), []

    def visit(name):
        assert name not in trail, " → ".join([*trail[trail.index(name) :], name])
        if name not in done:
            trail.append(name)
            for other in read_graph()[name]:
                visit(other)
            done.add(trail.pop())

    for name in read_modules():
        visit(name)


def test_no_family_or_class_of_models_is_known_where_every_family_is_served():
    wrong = []
    for name in select(FAMILY_FREE):
        path = PACKAGE / f"{name.replace('.', '/')}.py"
        text = path.read_text() if path.exists() else ""
        lines = [line for line in text.splitlines() if not line.lstrip().startswith((">>>", "... "))]  # no examples
        wrong += [f"{name}: {line}" for line in lines if FAMILY.search(line)]
        calls = [ast.unparse(node) for node in ast.walk(read_modules()[name]) if isinstance(node, ast.Call)]
        wrong += [f"{name}: {call}" for call in calls if call.startswith("isinstance(") and "model" in call.lower()]
    assert not wrong


def test_no_data_set_is_told_apart_by_its_name():
    told = [
        f"{name}: {ast.unparse(node)}"
        for name in read_modules()
        if name.split(".")[0] not in ("data", "features")
        for node in ast.walk(read_modules()[name])
        if isinstance(node, ast.Compare) and "'digits'" in ast.unparse(node)
    ]
    assert not told


def test_declarations_import_no_torch():
    found = {name: find_imports(read_modules()[name], lazy=False) for name in select(TORCH_FREE)}
    assert not [f"{name}: {full}" for name in found for full in found[name] if full.split(".")[0] == "torch"]


def test_the_catalogue_resolves():
    for entry in get_registry().list_parts():
        assert callable(entry.part.load()), entry.part


def test_few_files_stand_at_the_top_and_folders_are_two_levels_deep():
    assert len(list(PACKAGE.glob("*.py"))) <= 12
    assert max(len(path.relative_to(PACKAGE).parts) for path in PACKAGE.rglob("*.py")) <= 2


def test_child_processes_have_one_starter():
    paths = [*PACKAGE.rglob("*.py"), *PACKAGE.parent.glob("plugins/*/modkit_*/**/*.py")]
    own = re.compile(r"sys\.executable|\bmultiprocessing\b|\"-m\"")
    assert [path.name for path in paths if own.search(path.read_text())] == ["child.py"]


def test_required_packages_are_used():
    """The fault: einops was required, and imported nowhere."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
    required = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.match(r"[\w.-]+", one)[0] for one in required}
    imports = {full.split(".")[0] for tree in read_modules().values() for full in find_imports(tree)}
    assert {
        {
            "pillow": "PIL",
            "ruamel.yaml": "ruamel",
            "scikit-learn": "sklearn",
            "typing-extensions": "typing_extensions",
        }.get(one, one)
        for one in names
    } <= imports


def test_optional_members_of_parts_are_read_by_their_records():
    """Only the builder's marks on modules and members of other packages' objects are read with a default."""
    marks = {"origin", "frozen", "trained", "composition", "plan", "kind"}
    others = {
        "strerror",
        "O_BINARY",
        "O_NONBLOCK",
        "callspec",
        "params",
        "user_properties",
        "inplace",
        "patch_embed",
        "patch_size",
    }
    calls = [node for name in select(["*"]) for node in ast.walk(read_modules()[name]) if isinstance(node, ast.Call)]
    read = {
        call.args[1].value
        for call in calls
        if ast.unparse(call.func) == "getattr" and len(call.args) == 3 and isinstance(call.args[1], ast.Constant)
    }
    assert not {name for name in read if not name.startswith("__")} - marks - others
