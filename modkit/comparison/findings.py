"""Findings: what a comparison shows, in plain sentences, and how each entry was measured and can be measured again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from modkit.comparison.entries import Entry, System
from modkit.comparison.ranking import Ranking
from modkit.comparison.tables import number
from modkit.comparison.trilemma import Trilemma
from modkit.evaluation.report import format_options
from modkit.types import Score

__all__ = ["Measurement", "commands", "listed", "measurements", "sentences", "versions"]


@dataclass(frozen=True)
class Measurement:
    """How scores were measured, and of which entries.

    Args:
        scores: Their names.
        counts: Samples by set, as text.
        settings: What else they depend on, as text.
        seed: The seed of what was drawn.
        entries: Labels; empty where it is all.
    """

    scores: tuple[str, ...]
    counts: str
    settings: str
    seed: int
    entries: tuple[str, ...] = ()


def sentences(systems: Sequence[System], rankings: Mapping[str, Ranking], shown: Trilemma) -> list[str]:
    """What the page shows, in sentences."""
    return [
        *_subject(systems),
        *(said for axis in shown.axes if (said := _leader(systems, axis.score, rankings[axis.score]))),
        *_front(shown),
        *_unranked(rankings),
    ]


def measurements(entries: Sequence[Entry]) -> list[Measurement]:
    """How all scores were measured, equal ways together."""
    ways: dict[tuple[str, str, str, int], list[str]] = {}
    for entry in entries:
        for name, score in entry.report.scores.items():
            ways.setdefault((name, _said(score.counts), _said(score.settings), score.seed), []).append(entry.label)
    gathered: dict[tuple[str, str, int, tuple[str, ...]], list[str]] = {}
    for (name, counts, settings, seed), labels in ways.items():
        gathered.setdefault((counts, settings, seed, tuple(labels)), []).append(name)
    return [
        Measurement(tuple(names), counts, settings, seed, () if len(labels) == len(entries) else labels)
        for (counts, settings, seed, labels), names in gathered.items()
    ]


def commands(entry: Entry) -> list[str]:
    """The command lines that train and measure an entry again."""
    report, path = entry.report, str(entry.run.path)
    settings = {"seed": report.seed, **report.settings}
    if report.checkpoint:
        settings["checkpoint"] = report.checkpoint
    measure = ["modkit", "evaluate", path, *report.overrides, *format_options(settings)]
    train = ["modkit", "train", f"{path}/spec.yaml", "--out", f"{path}-again"]
    return [shlex.join(train), shlex.join(measure)]


def versions(entry: Entry) -> str:
    """The versions in a run's lock."""
    lock = entry.run.lock
    found: dict[str, str] = {name: str(lock[name]) for name in ("python", "torch", "numpy") if name in lock}
    parts = lock.get("parts")
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, Mapping):
            found[str(part.get("distribution"))] = str(part.get("version"))
    return ", ".join(f"{name} {version}" for name, version in found.items())


def listed(labels: Sequence[str]) -> str:
    """Names in a sentence."""
    return " and ".join(filter(None, (", ".join(labels[:-1]), labels[-1]))) if labels else "none"


def _subject(systems: Sequence[System]) -> Iterator[str]:
    entries = [entry for system in systems for entry in system.members]
    runs = len({entry.run.path.resolve() for entry in entries})
    counted = [f"{s.label} ({len(s.members)} training seeds)" if len(s.members) > 1 else s.label for s in systems]
    reports = "1 evaluation" if len(entries) == 1 else f"{len(entries)} evaluations"
    yield f"Compared are {reports} of {'1 run' if runs == 1 else f'{runs} runs'}: {listed(counted)}."


def _leader(systems: Sequence[System], name: str, ranking: Ranking) -> str:
    if len(ranking.ranks) < 2:
        return ""
    by = {system.label: system for system in systems}
    best = ranking.best
    score = by[best[0]].score(name)
    text = "" if score is None else f", {_written(score)}"
    said = f"{listed(best)} {'is' if len(best) == 1 else 'are'} best in {name}{text}"
    close = f"; within two standard errors of it {'is' if len(ranking.close) == 1 else 'are'} {listed(ranking.close)}"
    return said + (close if ranking.close else "") + "."


def _written(score: Score) -> str:
    value, error = number(score.value, score.error)
    return f"{value} ± {error}" if error else value


def _front(shown: Trilemma) -> Iterator[str]:
    missing = {"quality", "coverage", "speed"} - {axis.role for axis in shown.axes}
    if len(shown.dominated) > 1:
        axes = f"{listed([axis.role for axis in shown.axes])} by {listed([axis.score for axis in shown.axes])}"
        front = listed(shown.front)
        yield f"On the Pareto front of {axes}: {front}; no other is at least as good in all of these and better in one."
        for label, others in shown.dominated.items():
            if others:
                are = "is" if len(others) == 1 else "are each"
                yield f"{label} is not on it: {listed(others)} {are} at least as good in all and better in one."
    roles = {axis.role for axis in shown.axes}
    for point in shown.points:
        if absent := [role for role in sorted(roles) if role not in point.values]:
            yield f"{point.label} has no score of {listed(absent)}, so it is not held against the others in that."
    if missing:
        yield f"Not measured: {listed(sorted(missing))}; `modkit evaluate RUN` measures what its metrics ask for."


def _unranked(rankings: Mapping[str, Ranking]) -> Iterator[str]:
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, ranking in rankings.items():
        for label, reason in ranking.unranked.items():
            reasons.setdefault((label, reason), []).append(name)
    for (label, reason), names in reasons.items():
        yield f"{label} is shown but not ranked in {listed(names)}: {reason}."


def _said(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {v if isinstance(v, str) else json.dumps(v)}" for key, v in values.items())
