"""The base of the wrapped networks: checks of types, the map concatenated with x, time, and class embeddings.

    out = network([x, concat], time, class_labels)

The time that modkit passes to a network is set by its parametrization: the index t num - 1 of a table, which is
diffusers' timestep, or ln(sigma_t / alpha_t) / 4 without a table, as in diffusers' EDM schedulers. So it is passed
unchanged.

Shape letters: b batch, c channels, h w spatial, n tokens, d width.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from modkit.nn.embeddings import MapJoin
from modkit.types import Cond, CondType, TensorType
from modkit_diffusers.configured import Configured, list_blocks, make

__all__ = ["Network", "require"]


class Network(Configured):
    """One of diffusers' networks.

    Attributes:
        takes: The conditions, besides time, for which it has an input.
        place: Name of its attribute, and of its folder in diffusers' pipelines.
    """

    takes: ClassVar[tuple[str, ...]]
    place: ClassVar[str] = "unet"

    def _build(self, x: TensorType, out: TensorType, cond: CondType) -> None:
        size, emitted = self.check_maps("x", x)[1], self.check_maps("out", out)[1]
        if emitted != size:
            raise ValueError(f"{self.owner} expects out of x's size {size}, got {emitted}")
        self._cond = cond
        width = self._configure(size, cond)
        self.join = MapJoin(x, cond.concat, width)
        self.agree("in_channels", self.join.channels)
        self.agree("out_channels", out.shape[0])
        self.add_module(self.place, make(self.origins[0], self._make_config(size)))

    def _configure(self, size: tuple[int, int], cond: CondType) -> int:
        """Checks and completes the configuration; returns the width of the embedding of a map of codes."""
        raise NotImplementedError

    def _check_conditions(self, cond: CondType) -> None:
        """Refuses conditions for which the network has no input."""
        given = [name for name in ("vector", "noise", "labels", "context", "concat") if getattr(cond, name)]
        if odd := [name for name in given if name not in self.takes]:
            expected = f"no conditions but time, {', '.join(self.takes)}"
            raise ValueError(f"{self.owner} expects {expected}, got {', '.join(odd)}: {cond}")
        if cond.time > 1:
            raise ValueError(f"{self.owner} expects one time at most, got {cond.time}: {cond}")

    def _make_config(self, size: tuple[int, int]) -> dict[str, Any]:
        """Returns the configuration with the size of x."""
        return {**self.config, "sample_size": size[0] if size[0] == size[1] else size}

    @property
    def bare(self) -> nn.Module:
        """The network of diffusers."""
        return self.get_submodule(self.place)

    @property
    def units(self) -> list[nn.Module]:
        """The blocks of diffusers' network."""
        return list_blocks(self.bare)

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Evaluates the network at `x`, `b c h w`, with tokens `b n d` if it takes them.

        Raises:
            ValueError: If a condition of the type is missing.
        """
        time = require("time", cond.time) if self._cond.time else x.new_zeros(len(x))
        return self.bare(self.join(x, cond.concat), time, return_dict=False, **self._collect(x, cond))[0]

    def _collect(self, x: Tensor, cond: Cond) -> dict[str, Tensor | None]:
        """Returns the arguments of diffusers' class besides x and time: the vector or the labels."""
        if self._cond.vector:
            return {"class_labels": require("vector", cond.vector)}
        return {"class_labels": require("labels", cond.labels) if self._cond.labels else None}

    def _set_mirrored_blocks(self, attends: str) -> tuple[list[str], list[str]]:
        """Sets the blocks of each level: on the way down one plain level, then ones that attend; the way up mirrors it.

        Raises:
            ValueError: If there are not as many as levels.
        """
        down = ["DownBlock2D", *[attends] * (len(self.config["block_out_channels"]) - 1)]
        down = self.set_blocks("down_block_types", down)
        return down, self.set_blocks("up_block_types", [kind.replace("Down", "Up") for kind in reversed(down)])

    def _set_class_embedding(self, cond: CondType, of_vectors: str) -> None:
        """Sets `class_embed_type` and `num_class_embeds` for the vector or the labels.

        Args:
            cond: The conditions.
            of_vectors: How a vector is embedded if the configuration does not say.

        Raises:
            ValueError: If there are a vector and labels, the configuration embeds a condition that is missing, or has
                too few embeddings.
        """
        kind, num = self.config["class_embed_type"], self.config["num_class_embeds"]
        if cond.vector and cond.labels:
            raise ValueError(f"{self.owner} expects a vector or labels, got both: {cond}")
        if kind is not None and not cond.vector:
            raise ValueError(f"{self.owner} expects a vector for class_embed_type {kind!r}, got the conditions {cond}")
        if num is not None and not cond.labels:
            raise ValueError(f"{self.owner} expects labels for its {num} num_class_embeds, got the conditions {cond}")
        if cond.labels and num is not None and num <= cond.labels:
            needed = f"num_class_embeds of at least {cond.labels + 1}, for {cond.labels} labels and none"
            raise ValueError(f"{self.owner} expects {needed}, got {num}")
        if cond.vector:
            self.config["class_embed_type"] = kind or of_vectors
        self.config["num_class_embeds"] = num or cond.labels and cond.labels + 1


def require(name: str, value: Tensor | None) -> Tensor:
    """Returns a condition of the type; a `ValueError` names one that is missing."""
    if value is None:
        raise ValueError(f"the network expects a Cond with `{name}`, as its type says, got None")
    return value
