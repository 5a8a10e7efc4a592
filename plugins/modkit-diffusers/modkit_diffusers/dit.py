"""diffusers' DiTTransformer2DModel, a diffusion transformer over patches, as a network.

    out = unpatched(DiT(patched([x, concat]), time, class_labels))

Each block's normalisations are scaled, shifted and gated by the embeddings of time and label (adaLN-Zero). The last
label means no class; diffusers' class drops labels in training, which here the conditioner does instead.

Shape letters: b batch, c channels, h w spatial.

References:
    Scalable Diffusion Models with Transformers (Peebles & Xie, 2023), https://arxiv.org/abs/2212.09748
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from modkit.types import Cond, CondType, TensorType
from modkit_diffusers import helps
from modkit_diffusers.networks import Network

__all__ = ["DiT"]


class DiT(Network):
    """diffusers' DiTTransformer2DModel: a transformer over patches, modulated by time and labels.

    Args:
        x: Type of the input: continuous square maps, whose side is a multiple of the patch's.
        out: Type of the output, of x's size.
        cond: The conditions: time, labels, a map concatenated with x.
        sample_size: Side of x; only checked against x.
        patch_size: Side of a patch.
        num_layers: Number of blocks.
        num_attention_heads: Number of heads.
        attention_head_dim: Channels of a head.
        attention_bias: Whether attention's linear layers have biases.
        num_embeds_ada_norm: Number of labels, without that of no class; by default that of the conditions, or one.
        norm_type: How blocks are modulated; there is one choice.
        norm_elementwise_affine: Whether the normalisations have their own weights.
        activation_fn: Activation of the blocks.

    Raises:
        ValueError: If the types are not square maps of one size that patches divide, a condition has no input, or the
            configuration has another number of labels.
    """

    origins = ("DiTTransformer2DModel", "Transformer2DModel")
    takes = ("labels", "concat")
    place = "transformer"

    def __init__(
        self,
        x: TensorType,
        out: TensorType,
        cond: CondType,
        *,
        in_channels: Annotated[int | None, helps.IN_CHANNELS] = None,
        out_channels: Annotated[int | None, helps.OUT_CHANNELS] = None,
        sample_size: int | None = None,
        patch_size: int = 2,
        num_layers: int = 4,
        num_attention_heads: int = 4,
        attention_head_dim: int = 16,
        attention_bias: bool = True,
        num_embeds_ada_norm: int | None = None,
        norm_type: Literal["ada_norm_zero"] = "ada_norm_zero",
        norm_elementwise_affine: bool = False,
        norm_eps: Annotated[float, helps.NORM_EPS] = 1e-5,
        activation_fn: str = "gelu-approximate",
        dropout: Annotated[float, helps.DROPOUT] = 0.0,
        upcast_attention: Annotated[bool, helps.UPCAST] = False,
        folder: Annotated[str | None, helps.FOLDER] = None,
        pretrained: helps.Pretrained = None,
        train: Annotated[bool, helps.TRAIN] = True,
    ) -> None:
        super().__init__(locals())

    @property
    def units(self) -> list[nn.Module]:
        """The blocks after the first, whose embedding of the conditions diffusers calls once more at the end."""
        return list(self.bare.get_submodule("transformer_blocks").children())[1:]

    def _configure(self, size: tuple[int, int], cond: CondType) -> int:
        config, (height, width) = self.config, size
        patch, heads, head = config["patch_size"], config["num_attention_heads"], config["attention_head_dim"]
        if height != width or patch < 1 or height % patch:
            raise ValueError(f"DiT expects squares whose side patch_size {patch} divides, got {height}×{width}")
        if heads * head % 4:
            got = f"{heads} num_attention_heads of attention_head_dim {head}"
            raise ValueError(f"DiT expects a width that 4 divides, for its positions, got {got}")
        self._check_conditions(cond)
        num = config["num_embeds_ada_norm"]
        if cond.labels and num not in (None, cond.labels):
            raise ValueError(f"DiT expects num_embeds_ada_norm of its {cond.labels} labels, got {num}")
        self._none = config["num_embeds_ada_norm"] = num or cond.labels or 1
        return heads * head

    def _make_config(self, size: tuple[int, int]) -> dict[str, Any]:
        self.agree("sample_size", size[0])
        return self.config

    def _build(self, x: TensorType, out: TensorType, cond: CondType) -> None:
        from diffusers.models.embeddings import LabelEmbedding

        super()._build(x, out, cond)
        for module in self.bare.modules():
            if isinstance(module, LabelEmbedding):
                module.dropout_prob = 0.0

    def _collect(self, x: Tensor, cond: Cond) -> dict[str, Tensor | None]:
        """Returns the labels, or no class if they are not a condition."""
        if self._cond.labels:
            return super()._collect(x, cond)
        return {"class_labels": x.new_full((len(x),), self._none, dtype=torch.int64)}
