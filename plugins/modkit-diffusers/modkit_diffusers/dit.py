"""diffusers' DiTTransformer2DModel, a diffusion transformer over patches, as a network.

    out = unpatched(DiT(patched([x, concat]), time, class_labels))

Each block's normalisations are scaled, shifted and gated by the embeddings of time and label (adaLN-Zero). The last
label is none; diffusers' class would drop labels by itself in training, which here is the conditioner's affair.

Shape letters: b batch, c channels, h w spatial.

References:
    Scalable Diffusion Models with Transformers (Peebles & Xie, 2023), https://arxiv.org/abs/2212.09748
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from modkit.nn.embeddings import MapJoin
from modkit.types import Cond, CondType, TensorType
from modkit_diffusers.networks import check_channels, check_conditions, check_maps, made, required, timestep
from modkit_diffusers.pretrained import check_unread, load, written_out

__all__ = ["DiT"]


class DiT(nn.Module):
    """diffusers' DiTTransformer2DModel: a transformer over patches, modulated by time and labels.

    Args:
        x: Type of the input: continuous square maps, whose side the patch divides.
        out: Type of the output, of x's size.
        cond: The conditions: time, labels, a map beside x.
        in_channels: Channels of x and the map beside it; only compared, they are told.
        out_channels: Channels of the output; only compared, they are told.
        sample_size: Side of x; only compared, it is told.
        patch_size: Side of a patch.
        num_layers: Number of blocks.
        num_attention_heads: Number of heads.
        attention_head_dim: Channels of a head.
        attention_bias: Whether attention's linear layers have biases.
        num_embeds_ada_norm: Number of labels, none left out; None: as many as the conditions have, or one.
        norm_type: How blocks are modulated; there is one way.
        norm_elementwise_affine: Whether the normalisations have weights of their own.
        norm_eps: What normalisations add to a variance.
        activation_fn: Activation of the blocks.
        dropout: Share of the values dropped in each block.
        upcast_attention: Whether attention is computed in float32.
        folder: A local folder that diffusers saved: its configuration and weights.
        pretrained: Folder of the weights to start from, beside a configuration that is written out.
        train: Whether weights from a folder go on training.

    Raises:
        ValueError: If the types are no square maps of one size that patches divide, a condition has no input, or the
            configuration has another number of labels.
    """

    frozen: bool = False

    def __init__(
        self,
        x: TensorType,
        out: TensorType,
        cond: CondType,
        *,
        in_channels: int | None = None,
        out_channels: int | None = None,
        sample_size: int | None = None,
        patch_size: int = 2,
        num_layers: int = 4,
        num_attention_heads: int = 4,
        attention_head_dim: int = 16,
        attention_bias: bool = True,
        num_embeds_ada_norm: int | None = None,
        norm_type: Literal["ada_norm_zero"] = "ada_norm_zero",
        norm_elementwise_affine: bool = False,
        norm_eps: float = 1e-5,
        activation_fn: str = "gelu-approximate",
        dropout: float = 0.0,
        upcast_attention: bool = False,
        folder: str | None = None,
        pretrained: str | None = None,
        train: bool = True,
    ) -> None:
        super().__init__()
        check_unread("DiT", folder)
        height, width = check_maps("DiT", x, out)
        if height != width or patch_size < 1 or height % patch_size:
            raise ValueError(f"DiT expects squares whose side patch_size {patch_size} divides, got {height}×{width}")
        if num_attention_heads * attention_head_dim % 4:
            got = f"{num_attention_heads} num_attention_heads of attention_head_dim {attention_head_dim}"
            raise ValueError(f"DiT expects a width that 4 divides, for its positions, got {got}")
        check_conditions("DiT", cond, ("labels", "concat"))
        if cond.labels and num_embeds_ada_norm not in (None, cond.labels):
            raise ValueError(f"DiT expects num_embeds_ada_norm of its {cond.labels} labels, got {num_embeds_ada_norm}")

        from diffusers.models.embeddings import LabelEmbedding

        self._cond = cond
        self._none = num_embeds_ada_norm or cond.labels or 1
        self.join = MapJoin(x, cond.concat, num_attention_heads * attention_head_dim)
        self.transformer = made(
            "DiTTransformer2DModel",
            in_channels=check_channels("DiT", "in_channels", self.join.channels, in_channels),
            out_channels=check_channels("DiT", "out_channels", out.shape[0], out_channels),
            sample_size=check_channels("DiT", "sample_size", height, sample_size),
            patch_size=patch_size,
            num_layers=num_layers,
            num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim,
            attention_bias=attention_bias,
            num_embeds_ada_norm=self._none,
            norm_type=norm_type,
            norm_elementwise_affine=norm_elementwise_affine,
            norm_eps=norm_eps,
            activation_fn=activation_fn,
            dropout=dropout,
            upcast_attention=upcast_attention,
        )
        for module in self.transformer.modules():
            if isinstance(module, LabelEmbedding):
                module.dropout_prob = 0.0
        self._pretrained = pretrained
        if pretrained is not None and not train:
            self.requires_grad_(False)
            self.frozen = True

    @staticmethod
    def expanded(params: Mapping[str, Any]) -> dict[str, Any]:
        """The keywords that those of a spec stand for: the configuration in `folder` in its place."""
        return written_out(DiT, ("DiTTransformer2DModel", "Transformer2DModel"), params)

    def load_pretrained(self) -> None:
        """Takes the weights of the folder, where one was given."""
        if self._pretrained is not None:
            load("DiT", self.transformer, self._pretrained)

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Evaluates the network at `x`, `b c h w`; without labels as a condition, at none.

        Raises:
            ValueError: If a condition that the type has is missing.
        """
        time = timestep(self._cond, cond, x)
        labels = required("labels", cond.labels) if self._cond.labels else self._unlabelled(x)
        out: Tensor = self.transformer(self.join(x, cond.concat), time, class_labels=labels, return_dict=False)[0]
        return out

    def _unlabelled(self, x: Tensor) -> Tensor:
        return x.new_full((len(x),), self._none, dtype=torch.int64)
