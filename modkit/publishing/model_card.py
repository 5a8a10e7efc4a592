"""The model card: a README.md that describes a model, its scores and how to load it.

The Hugging Face Hub reads its front matter: tags, data and scores. The author has to add a licence. The template shows
what comes from a spec, a lock or a report as plain text: none of it is markup, HTML or a link.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from modkit.building.session import Loaded
from modkit.escapes import escape_controls, escape_markdown, quote_code
from modkit.evaluation.report import Report, format_options
from modkit.models.model import Model
from modkit.part import Part
from modkit.parts.registry import get_registry
from modkit.runs.lock import format_commit, read_rows
from modkit.runs.run import Run
from modkit.specs.node import Node
from modkit.specs.spec import Spec
from modkit.specs.yaml import dump

__all__ = ["Drawn", "write_model_card"]

_TASK, _OTHER = "unconditional-image-generation", "image-generation"


class Drawn(NamedTuple):
    """The picture of an exported model.

    Args:
        path: Its path in the folder, or None if there is no picture.
        refusal: Why the model cannot be sampled, so that the picture shows reconstructions; empty if it can.
    """

    path: str | None
    refusal: str


def write_model_card(run: Run, made: Loaded, reports: Sequence[Report], drawn: Drawn, splits: Mapping[str, int]) -> str:
    """Writes the text of a model card.

    Args:
        run: The exported run.
        made: Its model, and what the model was built from.
        reports: The reports of this checkpoint.
        drawn: The picture.
        splits: The number of samples in each split of the data; empty if the data is not available.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("modkit", "templates"),
        autoescape=False,  # which is for HTML: `finalize` escapes Markdown, except what the template calls safe
        finalize=lambda value: value if hasattr(value, "__html__") else escape_markdown(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": quote_code, "count": "{:,}".format}
    node = Spec.from_yaml(run.spec_text).data
    classes = run.lock.get("classes")
    players, frozen = _count_parameters(made.model)
    return environment.get_template("model_card.md").render(
        matter=dump(_make_front_matter(made, reports, not drawn.refusal)),
        name=made.plan.spec.name,
        part=made.plan.parts["model"],
        x=made.x,
        total=sum(parameter.numel() for parameter in made.model.parameters()),
        drawn=drawn,
        requirements=_list_requirements(run),
        data=_name_data(made),
        data_part=None if node is None else _find_data(node),
        settings=None if node is None else _list_settings(node),
        splits=splits,
        classes=classes if isinstance(classes, Mapping) else {},
        reports=[*zip(reports, _list_titles(reports))],
        players=players,
        frozen=frozen,
        origin=_describe_origin(run),
    )


def _make_front_matter(made: Loaded, reports: Sequence[Report], sampled: bool) -> dict[str, Any]:
    models = [part.name for part in made.plan.parts.values() if part.kind == "model"]
    data = _name_data(made)
    image = len(made.x.shape) == 3 and made.x.range is not None
    matter: dict[str, Any] = {"library_name": "modkit"}
    if image and sampled and not made.model.reads:  # the Hub has no task for pictures by class
        matter["pipeline_tag"] = _TASK
    matter["tags"] = list(dict.fromkeys(("modkit", *models)))
    if data:
        matter["datasets"] = [data]
    if results := [_make_result(made, one, title) for one, title in zip(reports, _list_titles(reports)) if one.scores]:
        matter["model-index"] = [{"name": made.plan.spec.name, "results": results}]
    return matter


def _make_result(made: Loaded, report: Report, title: str) -> dict[str, Any]:
    data = _name_data(made) or "unknown"
    task: dict[str, Any] = {"type": _OTHER if made.model.reads else _TASK, "name": "Image generation"}
    if title:
        task["name"] += f" with {title}"
    metrics = [
        {"type": re.sub(r"[^a-z0-9]+", "-", name.partition("(")[0].lower()).strip("-"), "name": name, "value": s.value}
        for name, s in report.scores.items()
    ]
    return {"task": task, "dataset": {"type": data, "name": data}, "metrics": metrics}


def _name_data(made: Loaded) -> str | None:
    """The name of the data set's part; the one in the spec if the part is not installed."""
    if (node := made.plan.spec.data) is None:
        return None
    part = _find_data(node)
    return part.name if part else str(node.use)


def _find_data(node: Node) -> Part | None:
    try:
        return get_registry().find("data", str(node.use))
    except ValueError:
        return None


def _list_titles(reports: Sequence[Report]) -> list[str]:
    """Returns for each report what was measured otherwise than the exported model by its spec, empty if nothing was.

    The checkpoint is the model's only one. Where reports differ only in how they were measured, their options tell it.
    """
    changes = [
        (*one.overrides, *(choice for choice in one.choices if not choice.startswith("checkpoint="))) for one in reports
    ]
    titles = []
    for report, made in zip(reports, changes):
        settings = {name: value for name, value in report.settings.items() if name != "precision"}  # is a choice
        options = format_options(settings) if changes.count(made) > 1 else []
        titles.append(" ".join([*made, *options]))
    return titles


def _list_settings(node: Node) -> list[str]:
    return [f"{key} {one}" for key, one in node.params.items() if one is not None and not isinstance(one, Mapping)]


def _list_requirements(run: Run) -> str:
    """Lists the distributions of a run's parts as words of a command."""
    needed = dict.fromkeys(f"{row['distribution']}=={row['version']}".removesuffix("==") for row in read_rows(run.lock))
    return " ".join(shlex.quote(escape_controls(" ".join(one.split()))) for one in sorted(needed))


def _count_parameters(model: Model) -> tuple[list[tuple[str, str, int]], int]:
    """Counts the parameters that each player trains, with its name and its modules, and the others: they are frozen."""
    every = {id(parameter): parameter.numel() for parameter in model.parameters()}
    counted = []
    trained: set[int] = set()
    for player in model.list_active_players() if every else ():
        modules = map(model.get_submodule, player.modules)
        mine = {id(one) for module in modules for one in module.parameters() if one.requires_grad}
        trained |= mine
        counted.append((player.name, ", ".join(player.modules), sum(every[one] for one in mine)))
    return counted, sum(num for one, num in every.items() if one not in trained)


def _describe_origin(run: Run) -> str:
    lock, commit = run.lock, format_commit(run.lock, "uncommitted changes")
    facts = [
        f"checkpoint {run.find_checkpoint_name()}",
        f"training seed {lock.get('seed')}",
        *(f"{name} {lock[name]}" for name in ("torch", "python", "numpy") if name in lock),
        *([f"commit {commit}"] if commit else []),
    ]
    return ", ".join(facts)
