"""Malformed specs and overrides: the tables of other tests that are data, and what those leave out.

Several of them are only dubious: they pass with a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modkit.specs.yaml import parse
from tests.building import test_checker, test_plan, test_review
from tests.play import spec as make_spec
from tests.specs import test_malformed, test_overrides, test_settings, test_spec, test_yaml

__all__ = ["list_malformed"]

_LONGEST = 20_000  # characters of a text; longer ones would only fill the folder
_DRAWN = 6  # mutations of each kind
_VAE = test_malformed.SMALL[0]
_DATA = "name: toy\nmodel: {use: gan, generator: mlp, discriminator: mlp}\ndata: "
_X = "name: toy\nmodel: {use: gan, generator: mlp, discriminator: mlp}\nx: "
_OWN = {
    "evaluate": [
        f"{_VAE}evaluate: {text}\n"
        for text in (
            "fast",
            "{metric: fd}",
            "{metrics: fd}",
            "{metrics: [fdd]}",
            "{metrics: [{use: prdc, k: 0}]}",
            "{metrics: [{use: prdc, k: many}]}",
            "{metrics: [fd], num: 1}",
            "{metrics: [fd], num: -3}",
            "{metrics: [modes]}",
            "{metrics: [codebook]}",
            "{features: pixel}",
            "{features: {use: classifier, weights: nowhere.safetensors}}",
            "{precision: float64}",
            "{watch: {every: 0}}",
            "{watch: {every: 2, metrics: [nothing]}}",
            "{watch: 3}",
        )
    ],
    "data": [
        f"{_DATA}{text}\n"
        for text in (
            "3",
            "[digits]",
            "{size: 8}",
            "{use: digit}",
            "{use: digits, size: eight}",
            "{use: digits, size: 0}",
            "{use: image-folder}",
            "{use: image-folder, root: nowhere}",
            "{use: array, path: nowhere.npy}",
            "{use: corrupted}",
            "{use: corrupted, data: mlp}",
            "{use: corrupted, data: digits, corruption: nothing}",
            "{use: corrupted, data: {use: digits, size: -8}, corruption: mask}",
            "{use: subset, data: digits, num: 0}",
            "{use: ring, modes: 0}",
            "{use: acme/pictures}",
        )
    ],
    "x": [
        f"{_X}{text}\n"
        for text in (
            "{}",
            "{shape: 3}",
            "{shape: [0]}",
            "{shape: [-1, 2]}",
            "{shape: [2], range: [1, -1]}",
            "{shape: [2], classes: 0}",
            "{shape: [2], std: -1}",
            "{shape: [2], fields: {labels: {clases: 3}}}",
            "{shape: [2]}\ndata: digits",
        )
    ],
    "run": [
        f"name: toy\ndata: {{use: digits, size: 8}}\nmodel:\n  use: latent\n  prior: {{use: diffusion, network: mlp}}\n"
        f"  autoencoder: {text}\n"
        for text in (
            "{use: run, path: nowhere, at: model}",
            "{use: run, path: ''}",
            "{use: run, path: [a]}",
            "{use: run, path: nowhere, at: 3}",
            "{use: run, path: nowhere, at: 'model['}",
            "{use: run, path: nowhere, train: 1}",
            "{use: run, path: spec.yaml}",
            "{use: run, path: nowhere, part: {use: autoencoder}}",
            "{ref: model.prior}",
            "{ref: model.prior.network}",
        )
    ],
}


def list_malformed() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Lists each with a name, as a text and overrides."""
    for group, texts in {**_OWN, **_read_tables()}.items():
        for number, text in enumerate(texts):
            if len(text) <= _LONGEST:
                yield f"{group}-{number}", text, ()
    overrides = _read(test_overrides.test_wrong_overrides_are_refused)
    overrides += _read(test_overrides.test_a_bare_name_is_refused_with_the_paths_that_it_may_mean)
    for number, override in enumerate(overrides):
        yield f"overrides-{number}", test_overrides.SAMPLE, (override,)
    for make in test_malformed.KINDS:
        for number, (text, overrides) in enumerate(test_malformed.mutations(make, _DRAWN)):
            if len(text) <= _LONGEST:
                yield f"{make.__name__}-{number}", text, overrides


def _read_tables() -> dict[str, list[str]]:
    """Texts by group."""
    models = _read(test_plan.test_what_does_not_fit_a_signature_is_refused)
    models += _read(test_checker.test_names_and_numbers_of_training_are_held_against_the_model)
    settings = _read(test_settings.test_a_wrong_setting_is_refused_at_its_place)
    planted = [row[0] for row in test_review.PLANTED.values() if test_review.Steep not in _list_uses(row[0])]
    return {
        "model": [f"{test_plan.HEAD}model: {model}\n" for model in models],
        "settings": [f"{test_settings.HEAD}train: {train}\n" for train in settings],
        "top-level": _read(test_spec.test_wrong_top_levels_are_refused),
        "references": [f"model: {model}\n" for model in _read(test_spec.test_wrong_references_are_refused)],
        "yaml": _read(test_yaml.test_what_is_not_plain_data_is_refused_where_it_stands),
        "planted": [make_spec(model).to_yaml() for model in planted],
        "shape": [
            text for base, rows in zip(test_malformed.SMALL, test_malformed.MISFITS) for text in _put(base, rows)
        ],
        "absurd": list(_put(_VAE, [(path, lambda _, value=value: value) for path, value in test_malformed.ABSURD])),
    }


def _read(test: Any) -> list[str]:
    """Reads the first argument of each row of a parametrized test."""
    (mark,) = (mark for mark in test.pytestmark if mark.name == "parametrize")
    first = [row[0] for row in mark.args[1]]
    return [value[0] if isinstance(value, tuple) else value for value in first]


def _put(base: str, rows: list[tuple[str, Any]]) -> Iterator[str]:
    """Puts the value of each row into a valid spec."""
    for path, make in rows:
        tree = parse(base)[0]
        test_malformed.put(tree, path, make(3))
        yield test_malformed.written(tree)


def _list_uses(node: Any) -> list[Any]:
    """Lists what the nodes of a tree use."""
    if not isinstance(node, dict) and not hasattr(node, "params"):
        return []
    return [node.use, *(use for value in node.params.values() for use in _list_uses(value))]
