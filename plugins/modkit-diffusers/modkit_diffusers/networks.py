"""What the wrapped networks share: types that they refuse, the map beside x, time, and class embeddings.

    out = network([x, concat], time, class_labels)

The time that modkit hands a network is what its parametrization says it embeds: a table's index t num - 1, which is
diffusers' timestep, or of a schedule without a table ln(sigma_t / alpha_t) / 4, which is what diffusers' EDM schedulers
hand theirs. So it is passed on as it is.

Shape letters: b batch, c channels, h w spatial, n tokens, d width.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from modkit.nn.embeddings import MapJoin
from modkit.types import Cond, CondType, TensorType
from modkit_diffusers.configured import Configured, make

__all__ = ["Network", "required"]


class Network(Configured):
    """A network of diffusers.

    Attributes:
        takes: The conditions that it has an input for, besides time.
        place: Name of its attribute, and of the folder that pipelines of diffusers keep it in.
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
        self.add_module(self.place, make(self.sources[0], self._sized(size)))

    def _configure(self, size: tuple[int, int], cond: CondType) -> int:
        """Checks the configuration and completes it; the width in which a map of codes is embedded."""
        raise NotImplementedError

    def _check_conditions(self, cond: CondType) -> None:
        """Refuses conditions that the network has no input for.

        Raises:
            ValueError: If there is one.
        """
        given = [name for name in ("vector", "noise", "labels", "context", "concat") if getattr(cond, name)]
        if odd := [name for name in given if name not in self.takes]:
            expected = f"no conditions but time, {', '.join(self.takes)}"
            raise ValueError(f"{self.owner} expects {expected}, got {', '.join(odd)}: {cond}")

    def _sized(self, size: tuple[int, int]) -> dict[str, Any]:
        """The configuration with the size of x."""
        return {**self.config, "sample_size": size[0] if size[0] == size[1] else size}

    @property
    def bare(self) -> nn.Module:
        """The network of diffusers."""
        return self.get_submodule(self.place)

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Evaluates the network at `x`, `b c h w`, with tokens `b n d` where it takes them.

        Raises:
            ValueError: If a condition that the type has is missing.
        """
        time = required("time", cond.time) if self._cond.time else x.new_zeros(len(x))
        out: Tensor = self.bare(self.join(x, cond.concat), time, return_dict=False, **self._conditions(x, cond))[0]
        return out

    def _conditions(self, x: Tensor, cond: Cond) -> dict[str, Tensor | None]:
        """What diffusers' class is given besides x and time: the vector or the labels."""
        if self._cond.vector:
            return {"class_labels": required("vector", cond.vector)}
        return {"class_labels": required("labels", cond.labels) if self._cond.labels else None}

    def _set_mirrored_blocks(self, attends: str) -> tuple[list[str], list[str]]:
        """Sets the blocks of each level: down a plain one and then those that attend, up the same mirrored.

        Raises:
            ValueError: If there are not as many as levels.
        """
        down = ["DownBlock2D", *[attends] * (len(self.config["block_out_channels"]) - 1)]
        down = self.set_blocks("down_block_types", down)
        return down, self.set_blocks("up_block_types", [kind.replace("Down", "Up") for kind in reversed(down)])

    def _set_class_embedding(self, cond: CondType, of_vectors: str) -> None:
        """Sets `class_embed_type` and `num_class_embeds` for the vector or the labels that the network is told.

        Args:
            cond: The conditions.
            of_vectors: How a vector is embedded where the configuration does not say.

        Raises:
            ValueError: If there are a vector and labels, the configuration embeds something that there is not, or has
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


def required(name: str, value: Tensor | None) -> Tensor:
    """A condition that the type has.

    Raises:
        ValueError: If it is missing.
    """
    if value is None:
        raise ValueError(f"the network expects a Cond with `{name}`, as its type says, got None")
    return value
