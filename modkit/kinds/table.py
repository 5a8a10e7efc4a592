"""The table of kinds: their names, their Protocols and the types given to their parts.

Types are passed by name, so a part takes only the types that it declares as parameters. Every other parameter of a part
is plain data or a slot, for the user to set. A plug-in adds rows by its hook `modkit_kinds`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from modkit.part import import_object

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True)
class Kind:
    """A row of the table of kinds.

    Args:
        name: The kind's name; the registry prefixes the plug-in's (`acme/layout`).
        protocol: Name of its Protocol in `modkit.kinds` (`Model` is the class in `modkit.models.model`), or
            `"module:Name"` of a plug-in's. A record of optional members stands beside it, as `NameExtras`.
        given: Names of the types that the assembly passes to its parts; users cannot set them.
        summary: What its parts do.
        phase: When a model needs its parts. Those that only sampling uses may be swapped in a run. A run can be loaded
            without those that only training uses, in slots that may be empty.
        optional: Those of `given` that a part need not declare even where they are not empty: the assembly finds out
            which of its parts take conditions.
        case: Where the case is from which the battery tests its parts, `"module:NAME"`; modkit's kinds have theirs in
            `modkit.cases`.
        adopts: Where a function is that writes classes of another library as parts, `"module:name"`: given a class and
            its keywords, it returns `{"use": part, …}`, or None for a class that it does not know.
        starters: The package with the example part from which `modkit new-plugin` creates one, of the form of
            `modkit.starters`; modkit's kinds have theirs there.
    """

    name: str
    protocol: str
    given: tuple[str, ...]
    summary: str
    phase: Literal["always", "training", "sampling"] = "always"
    optional: tuple[str, ...] = ()
    case: str | None = None
    adopts: str | None = None
    starters: str | None = None

    @property
    def target(self) -> str:
        """Where its Protocol is, `module:Name`."""
        return self.protocol if ":" in self.protocol else f"modkit.kinds:{self.protocol}"

    def load_protocol(self) -> type:
        """Imports its Protocol.

        Raises:
            ValueError: If the module has no such name, or it is no Protocol.
            ImportError: If the module cannot be imported.
        """
        found = import_object(self.target, f"kind {self.name}")
        if Protocol not in getattr(found, "__bases__", ()):
            raise ValueError(f"kind {self.name} expects a Protocol as {self.target}, got {found!r}")
        return found

    def write_class(self, target: Any, keywords: Mapping[str, Any]) -> dict[str, Any] | None:
        """Writes a class of another library, with keywords, as a part; None if it cannot."""
        return import_object(self.adopts, f"kind {self.name}")(target, keywords) if self.adopts else None

    def load_extras(self) -> Any:
        """Imports the record of its parts' optional members, `NameExtras` beside the Protocol; None if it has none."""
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), f"{name}Extras", None)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "model",
            "Model",
            ("x", "cond", "fields", "coder"),
            "a distribution and the game that trains it",
            optional=("coder",),
        ),
        Kind("encoder", "Encoder", ("x", "cond"), "data to features", optional=("cond",)),
        Kind("bottleneck", "Bottleneck", ("h",), "features to latents"),
        Kind("decoder", "Decoder", ("z", "x", "cond"), "latents to a likelihood's parameters", optional=("cond",)),
        Kind("likelihood", "Likelihood", ("x",), "p(x | z)"),
        Kind("objective", "Objective", ("z",), "what an autoencoder maximises"),
        Kind(
            "judge",
            "Judge",
            ("name", "x", "z", "cond", "repeat"),
            "losses of what a model makes",
            phase="training",
            optional=("cond",),
        ),
        Kind("bijection", "Bijection", ("x", "cond"), "an invertible map, with the volume that it gains"),
        Kind("generator", "Generator", ("z", "x", "cond"), "noise to data"),
        Kind("discriminator", "Discriminator", ("x", "cond", "heads"), "real or fake"),
        Kind("network", "Network", ("x", "out", "cond"), "a conditional map: every denoiser"),
        Kind("prior-network", "PriorNetwork", ("codes", "cond", "causal"), "codes to the logits of each"),
        Kind("decoding", "Decoding", ("codes",), "logits to codes", phase="sampling"),
        Kind("schedule", "Schedule", ("x",), "signal and noise over time"),
        Kind("times", "Times", ("schedule", "x"), "times drawn in training"),
        Kind(
            "coupling", "Coupling", ("x", "cond", "fields", "conditions"), "noise paired with data", optional=("cond",)
        ),
        Kind("alignment", "Alignment", ("x", "fields", "taps"), "a loss of a denoiser's inner map", phase="training"),
        Kind("parametrization", "Parametrization", ("schedule", "x"), "what a denoiser predicts"),
        Kind("loss-weight", "LossWeight", (), "weight of the denoising loss over time"),
        Kind("grid", "Grid", ("schedule", "x"), "where a sampler steps", phase="sampling"),
        Kind("sampler", "Sampler", ("schedule", "x"), "steps from noise to data", phase="sampling"),
        Kind(
            "guidance",
            "Guidance",
            ("schedule", "x", "cond", "fields", "conditions"),
            "a conditional denoiser and another combined",
            phase="sampling",
            optional=("cond",),
        ),
        Kind("conditioner", "Conditioner", ("fields",), "fields to conditions"),
        Kind("adversarial", "Adversarial", (), "losses of an adversarial game"),
        Kind("augmentation", "Augmentation", ("x",), "samples changed before a critic judges them"),
        Kind("regularizer", "Regularizer", ("x",), "penalty on a side of a game"),
        Kind("weight", "Weight", ("term",), "weight of a loss term"),
        Kind("data", "Data", (), "a data set"),
        Kind("corruption", "Corruption", ("x",), "what a sample loses, as fields"),
        Kind("features", "FeatureExtractor", ("x",), "images to features", phase="training"),
        Kind("metric", "Metric", (), "a measure of samples"),
        Kind("optimizer", "Optimizer", ("parameters",), "moves parameters", adopts="modkit.optim.foreign:write_class"),
        Kind("lr-schedule", "LRSchedule", ("optimizer", "steps"), "learning rate over a stage"),
        Kind("logger", "Logger", (), "watches a run"),
        Kind("engine", "Engine", ("device",), "processes and devices"),
    )
}
"""Every kind by name."""
