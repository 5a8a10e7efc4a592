"""Optional members: what a part may have beside the members that the Protocol of its kind requires.

A Protocol with optional members has a record of them beside it: `BottleneckExtras` belongs to `Bottleneck`. The fields
of the record are the members, with their types and the defaults that stand in for members that a part lacks.
`read_extras` reads them, so a part inherits nothing and defines only the members it has. What cannot be of a member's
type is refused when the part is built (`modkit.building.members`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

__all__ = ["BatchExtras", "GameExtras", "ImpliedExtras", "PretrainedExtras", "PromiseExtras", "read_extras"]

T = TypeVar("T")


def read_extras(part: object, record: type[T]) -> T:
    """Reads the optional members of a part.

    Args:
        part: The part.
        record: The record of its kind's optional members, a dataclass.

    Returns:
        A `record` with the part's own members, and the default for each that it lacks.

    Examples:
        >>> from modkit.kinds import LikelihoodExtras
        >>> class Density:
        ...     constant = 0.0
        >>> read_extras(Density(), LikelihoodExtras).constant
        0.0
        >>> read_extras(object(), LikelihoodExtras).constant is None
        True
    """
    names = [member.name for member in fields(record)]  # type: ignore[arg-type]  # any dataclass
    return record(**{name: getattr(part, name) for name in names if hasattr(part, name)})


@dataclass(frozen=True)
class ImpliedExtras:
    """Optional members of a part of any kind that goes together with certain parts of other kinds.

    Args:
        implies: The parts that fill the slots next to its own where a spec or a composition leaves these out, by the
            names of the slots. Each is a part's name, or a mapping with `use` and parameters. It is read from the
            part's target before the part is built, so it is an attribute of the class or function.
    """

    implies: Mapping[str, str | Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class GameExtras:
    """Optional members of a part of any kind that has players, as Models have; they are attributes of its class.

    Args:
        optimizers: Optimizers that its players need, by patterns of their names, each a part's name or a mapping with
            `use` and parameters. A swap that puts the Model in place of another writes them into `train.players`.
        prefixes: What stands before the names of the players of a Model in one of its slots, by the slot's name, where
            that is not the slot's name itself.
    """

    optimizers: Mapping[str, str | Mapping[str, Any]] = field(default_factory=dict)
    prefixes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PromiseExtras:
    """Optional members of a part of any kind that promise more than its kind does; the battery holds them to it.

    Args:
        batch_independent: Whether a row of the output depends on the same row of the input only, in training as well.
    """

    batch_independent: bool = False


@dataclass(frozen=True)
class BatchExtras:
    """Optional members of a part of any kind whose value for a batch is other than a mean over its rows.

    `modkit check` names such a part where a batch is split: into microbatches, or among processes of which each sees
    its own rows. They are attributes of the class, but for `pack`, which may be one of the object.

    Args:
        across: Whether it looks across the rows of a batch in training.
        pack: Number of rows, one after the other, that it looks across where it does not look across all. It is named
            where the rows that it is given are no multiple of it, so that a pack is completed from its own microbatch.
        gather: Whether it sees the rows of all processes, by `Step.total` or `Step.gather`, or since it is given them.
            A parameter of the part of this name is read in its place.
    """

    across: bool = False
    pack: int = 1
    gather: bool = False


@dataclass(frozen=True)
class PretrainedExtras:
    """Optional members of a part of any kind whose configuration or weights are stored elsewhere, or written otherwise.

    Args:
        expand_params: A static or class method of the part's target. It receives the parameters written in a spec and
            returns those that they stand for, such as the configuration in a pretrained folder, or the names that
            parameters have today. A run's resolved spec stores the result, so loading the run does not need the folder.
        load_pretrained: Loads the weights into a module that is trained or sampled as it is. It is not called where a
            run's own weights are loaded afterwards.
    """

    expand_params: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    load_pretrained: Callable[[], None] | None = None
