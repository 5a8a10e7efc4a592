"""The model card: a README.md that describes a model, its scores and how to load it.

The Hugging Face Hub reads its front matter: tags, data and scores. The author has to add a licence. What comes from a
spec, a lock or a report is shown as plain text: none of it is markup, HTML or a link.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from torch import nn

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
from modkit.types import Score

__all__ = ["Drawn", "write_model_card"]

_TASK, _OTHER = "unconditional-image-generation", "image-generation"
_NAMED = 100  # classes that are listed
_LICENCE = "# license: to be chosen by the publisher: https://huggingface.co/docs/hub/repositories-licenses"


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
    name = made.plan.spec.name
    sections = (
        f"# {escape_markdown(name)}\n",
        f"{_describe_model(made)}\n",
        *([f"![samples]({quote(drawn.path)})\n"] if drawn.path else []),
        *([f"The model cannot be sampled: {escape_markdown(drawn.refusal)}\n"] if drawn.refusal else []),
        *_describe_loading(run, bool(drawn.refusal)),
        *_describe_data(run, made, splits),
        *_describe_scores(reports),
        *_describe_parameters(made.model),
        *_describe_origin(run),
    )
    return f"---\n{_LICENCE}\n{dump(_make_front_matter(made, reports, not drawn.refusal))}---\n\n" + "\n".join(sections)


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


def _describe_model(made: Loaded) -> str:
    part = made.plan.parts["model"]
    total = sum(parameter.numel() for parameter in made.model.parameters())
    return (
        f"Model `{part.name}`: {part.summary.rstrip('.')}. It generates {made.x} and has {total:,} parameters. "
        "[spec.yaml](spec.yaml) describes its parts, [modkit.lock](modkit.lock) the versions that it was made with."
    )


def _describe_loading(run: Run, refused: bool) -> Iterator[str]:
    needed = dict.fromkeys(f"{row['distribution']}=={row['version']}".removesuffix("==") for row in read_rows(run.lock))
    yield "## Use\n"
    words = " ".join(shlex.quote(escape_controls(" ".join(one.split()))) for one in sorted(needed))
    yield f"```sh\npip install {words}\n```\n"
    lines = [
        "import modkit",
        "",
        'model = modkit.load(".")  # this folder; locked=True refuses other versions of parts',
    ]
    lines += [] if refused else ["x = model.sample(16, seed=0)"]
    yield "\n".join(["```python", *lines, "```\n"])
    yield 'To download the folder from the Hub, use `huggingface_hub.snapshot_download("USER/NAME")`.\n'


def _describe_data(run: Run, made: Loaded, splits: Mapping[str, int]) -> Iterator[str]:
    node = Spec.from_yaml(run.spec_text).data
    if node is None:
        return
    yield "## Data\n"
    part, params = _find_data(node), {key: value for key, value in node.params.items() if value is not None}
    settings = ", ".join(
        escape_markdown(f"{key} {value}") for key, value in params.items() if not isinstance(value, Mapping)
    )
    counts = ", ".join(f"{count:,} {escape_markdown(split)}" for split, count in splits.items())
    facts = "; ".join(filter(None, (settings, f"{counts} samples" if counts else "", f"one sample is {made.x}")))
    summary = f" ({part.summary.rstrip('.')})" if part else ""
    yield f"{quote_code(_name_data(made) or '')}{summary}: {facts}.\n"
    yield from _describe_classes(run.lock.get("classes"))


def _describe_classes(classes: Any) -> Iterator[str]:
    """Names the classes of each field by their numbers, which `model.sample(labels=…)` takes."""
    for field, names in classes.items() if isinstance(classes, Mapping) else ():
        shown = [f"{number} {escape_markdown(str(name))}" for number, name in enumerate(names[:_NAMED])]
        rest = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        yield f"Classes of {quote_code(str(field))}: {', '.join(shown)}{rest}.\n"


def _describe_scores(reports: Sequence[Report]) -> Iterator[str]:
    yield "## Scores\n"
    if not reports:
        yield "None yet; `modkit evaluate .` measures them.\n"
    for report, title in zip(reports, _list_titles(reports)):
        if title:
            yield f"With {quote_code(title)}:\n"
        floor = ["held-out data"] if report.floor else []
        yield from _make_table(["score", "value", "± standard error", *floor, "better"], _make_score_rows(report))
        counts = ", ".join(f"{count:,} {escape_markdown(name)}" for name, count in report.counts.items())
        yield f"{counts}; seed {report.seed}.\n"
        yield from (f"Note: {escape_markdown(note)}\n" for note in report.notes)


def _make_score_rows(report: Report) -> Iterator[list[str]]:
    for name, score in report.scores.items():
        floor = [_format_score(report.floor.get(name))] if report.floor else []
        error = "" if score.error is None else f"{score.error:.2g}"
        yield [escape_markdown(name), _format_score(score), error, *floor, score.better or ""]


def _format_score(score: Score | None) -> str:
    return "" if score is None else f"{score.value:.4g}"


def _describe_parameters(model: Model) -> Iterator[str]:
    """Counts the parameters that each player trains; all others are frozen."""
    every = {id(parameter): parameter.numel() for parameter in model.parameters()}
    if not every:
        return
    yield "## Parameters\n"
    counted: list[list[str]] = []
    trained: set[int] = set()
    for player in model.list_active_players():
        mine = {id(parameter) for parameter in _list_owned(model, player.modules)}
        trained |= mine
        counted.append(
            [
                quote_code(player.name),
                escape_markdown(", ".join(player.modules)),
                f"{sum(every[one] for one in mine):,}",
            ]
        )
    if frozen := sum(num for one, num in every.items() if one not in trained):
        counted.append(["frozen", "", f"{frozen:,}"])
    yield from _make_table(["player", "modules", "parameters"], counted)


def _list_owned(model: Model, paths: Iterable[str]) -> list[nn.Parameter]:
    return [p for path in paths for p in model.get_submodule(path).parameters() if p.requires_grad]


def _describe_origin(run: Run) -> Iterator[str]:
    lock = run.lock
    yield "## Origin\n"
    commit = format_commit(lock, "uncommitted changes")
    facts = [
        f"checkpoint {run.find_checkpoint_name()}",
        f"training seed {lock.get('seed')}",
        *(f"{name} {lock[name]}" for name in ("torch", "python", "numpy") if name in lock),
        *([f"commit {commit}"] if commit else []),
    ]
    yield f"{escape_markdown(', '.join(facts))}.\n"


def _make_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    lines = [header, ["---"] * len(header), *rows]
    yield "".join(f"| {' | '.join(line)} |\n" for line in lines)
