"""Findings: what a comparison shows, in plain sentences, and how each entry was measured and can be reproduced."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from modkit.comparison.entries import RunEvaluation, System
from modkit.comparison.ranking import Ranking
from modkit.comparison.tables import format_number
from modkit.comparison.trilemma import Trilemma
from modkit.comparison.words import join_words
from modkit.evaluation.report import format_options
from modkit.types import Score

__all__ = ["Measurement", "find_versions", "group_measurements", "list_commands", "write_findings"]


@dataclass(frozen=True)
class Measurement:
    """Counts, settings and seed with which scores of some entries were measured."""

    scores: tuple[str, ...]  # names of the scores
    counts: str  # number of samples in each set, as text
    settings: str  # what else the scores depend on, as text
    seed: int  # the seed of the random draws
    entries: tuple[str, ...] = ()  # labels of the entries; empty if it is all of them


def write_findings(systems: Sequence[System], rankings: Mapping[str, Ranking], shown: Trilemma) -> list[str]:
    """Writes the findings, one sentence each."""
    return [
        *_describe_systems(systems),
        *(text for axis in shown.axes if (text := _describe_best(systems, axis.score, rankings[axis.score]))),
        *_describe_front(shown),
        *_explain_unranked(rankings),
        *_explain_changed(systems),
    ]


def group_measurements(entries: Sequence[RunEvaluation]) -> list[Measurement]:
    """Groups all scores by how they were measured."""
    ways: dict[tuple[str, str, str, int], list[str]] = {}
    for entry in entries:
        for name, score in entry.report.scores.items():
            ways.setdefault(
                (name, _format_settings(score.counts), _format_settings(score.settings), score.seed), []
            ).append(entry.label)
    gathered: dict[tuple[str, str, int, tuple[str, ...]], list[str]] = {}
    for (name, counts, settings, seed), labels in ways.items():
        gathered.setdefault((counts, settings, seed, tuple(labels)), []).append(name)
    return [
        Measurement(tuple(names), counts, settings, seed, () if len(labels) == len(entries) else labels)
        for (counts, settings, seed, labels), names in gathered.items()
    ]


def list_commands(entry: RunEvaluation) -> list[str]:
    """Lists the command lines that train and measure an entry again."""
    report, path = entry.report, str(entry.run.path)
    settings = {"seed": report.seed, **report.settings}
    if report.checkpoint:
        settings["checkpoint"] = report.checkpoint
    measure = ["modkit", "evaluate", path, *report.overrides, *format_options(settings)]
    train = ["modkit", "train", f"{path}/spec.yaml", "--out", f"{path}-again"]
    return [shlex.join(train), shlex.join(measure)]


def find_versions(entry: RunEvaluation) -> str:
    """Finds the versions recorded in a run's lock."""
    lock = entry.run.lock
    found: dict[str, str] = {name: str(lock[name]) for name in ("python", "torch", "numpy") if name in lock}
    parts = lock.get("parts")
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, Mapping):
            found[str(part.get("distribution"))] = str(part.get("version"))
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _describe_systems(systems: Sequence[System]) -> Iterator[str]:
    entries = [entry for system in systems for entry in system.members]
    runs = len({entry.run.path.resolve() for entry in entries})
    counted = [f"{s.label} ({len(s.members)} training seeds)" if len(s.members) > 1 else s.label for s in systems]
    reports = "1 evaluation" if len(entries) == 1 else f"{len(entries)} evaluations"
    yield f"This page compares {reports} of {'1 run' if runs == 1 else f'{runs} runs'}: {join_words(counted)}."


def _describe_best(systems: Sequence[System], name: str, ranking: Ranking) -> str:
    if len(ranking.ranks) < 2:
        return ""
    by = {system.label: system for system in systems}
    best = ranking.best
    score = by[best[0]].get_score(name)
    value = "" if score is None else f", {_format_score(score)}"
    text = f"{join_words(best)} {'is' if len(best) == 1 else 'are'} best in {name}{value}"
    close = f"; {join_words(ranking.close)} {'is' if len(ranking.close) == 1 else 'are'} within two standard errors"
    return text + (close if ranking.close else "") + "."


def _format_score(score: Score) -> str:
    value, error = format_number(score.value, score.error)
    return f"{value} ± {error}" if error else value


def _describe_front(shown: Trilemma) -> Iterator[str]:
    if len(shown.dominated) > 1:
        axes = f"{join_words([axis.role for axis in shown.axes])} by {join_words([axis.score for axis in shown.axes])}"
        front = join_words(shown.front)
        best = "no other system is at least as good in all of them and better in one"
        yield f"On the Pareto front of {axes}: {front}; {best}."
        for label, others in shown.dominated.items():
            if others:
                are = "is at least" if len(others) == 1 else "are each at least"
                yield f"{label} is not on the front: {join_words(others)} {are} as good in all and better in one."
    roles = {axis.role for axis in shown.axes}
    for point in shown.points:
        if absent := [role for role in sorted(roles) if role not in point.values]:
            yield f"{point.label} has no score for {join_words(absent)} and is not compared with the others there."
    if shown.unmeasured:
        missing = join_words(sorted(shown.unmeasured))
        yield f"Not measured: {missing}; use `modkit evaluate RUN --metrics` to measure more."


def _explain_unranked(rankings: Mapping[str, Ranking]) -> Iterator[str]:
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, ranking in rankings.items():
        for label, reason in ranking.unranked.items():
            reasons.setdefault((label, reason), []).append(name)
    for (label, reason), names in reasons.items():
        yield f"{label} is shown but not ranked in {join_words(names)}: {reason}."


def _explain_changed(systems: Sequence[System]) -> Iterator[str]:
    for entry in (entry for system in systems for entry in system.members if entry.changed):
        left = "training images and those nearest to its samples are not shown"
        yield f"The data of {entry.label} have changed since it was measured on them: {left}."


def _format_settings(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {v if isinstance(v, str) else json.dumps(v)}" for key, v in values.items())
