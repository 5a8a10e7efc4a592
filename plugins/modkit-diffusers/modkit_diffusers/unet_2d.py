"""diffusers' UNet2DModel, the U-Net of DDPM and ADM, as a network.

    out = UNet2DModel([x, concat], time, class_labels)

A vector is added to the embedding of time as it is (`identity`), labels have an embedding each.

Shape letters: b batch, c channels, h w spatial.

References:
    Denoising Diffusion Probabilistic Models (Ho et al., 2020), appendix B, https://arxiv.org/abs/2006.11239
    Diffusion Models Beat GANs on Image Synthesis (Dhariwal & Nichol, 2021), https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from modkit.nn.embeddings import MapJoin
from modkit.types import Cond, CondType, TensorType
from modkit_diffusers.networks import (
    blocks,
    check_channels,
    check_conditions,
    check_groups,
    check_halvings,
    check_heads,
    check_maps,
    class_embedding,
    class_labels,
    made,
    timestep,
)
from modkit_diffusers.pretrained import check_unread, load, written_out

__all__ = ["UNet2D"]


class UNet2D(nn.Module):
    """diffusers' UNet2DModel: residual blocks down and up a pyramid, with self-attention.

    Args:
        x: Type of the input: continuous maps, whose sides all halvings divide.
        out: Type of the output, of x's size.
        cond: The conditions: time, a vector or labels, a map beside x.
        in_channels: Channels of x and the map beside it; only compared, they are told.
        out_channels: Channels of the output; only compared, they are told.
        block_out_channels: Channels of each level, finest first; the resolution is halved between levels.
        down_block_types: Blocks of each level on the way down; None: `DownBlock2D`, then `AttnDownBlock2D`.
        mid_block_type: Block of the middle, or none.
        up_block_types: Blocks of each level on the way up; None: those of the way down, mirrored.
        layers_per_block: Residual blocks a level on the way down; one more on the way up.
        add_attention: Whether the middle attends.
        attention_head_dim: Channels of an attention head; None: one head.
        norm_num_groups: Groups of the normalisations.
        norm_eps: What normalisations add to a variance.
        attn_norm_num_groups: Groups of the middle's normalisation before attention; None: as `norm_num_groups`.
        act_fn: Activation of the residual blocks.
        dropout: Share of the values dropped in each residual block.
        resnet_time_scale_shift: Whether the embedding is added in residual blocks, or scales and shifts.
        mid_block_scale_factor: What the middle's outputs are divided by.
        downsample_padding: Padding of halvings; 0: at the end only.
        downsample_type: Halvings by a convolution or a residual block.
        upsample_type: Doublings by a convolution or a residual block.
        center_input_sample: Whether inputs in [0, 1] are mapped to [-1, 1].
        time_embedding_dim: Width of the embedding; None: of the vector where there is one, else four times the first
            level's channels.
        freq_shift: Taken off the number of frequencies that time is embedded by.
        flip_sin_to_cos: Whether cosines come before sines.
        class_embed_type: How a vector is embedded.
        num_class_embeds: Number of labels' embeddings; None: one a label, and one for none.
        folder: A local folder that diffusers saved: its configuration and weights.
        pretrained: Folder of the weights to start from, beside a configuration that is written out.
        train: Whether weights from a folder go on training.

    Raises:
        ValueError: If the types are no maps of one size, a side or a number of channels is not divisible as the
            configuration needs it, or a condition has no input.
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
        block_out_channels: list[int] = [32, 64],  # noqa: B006
        down_block_types: list[str] | None = None,
        mid_block_type: Literal["UNetMidBlock2D"] | None = "UNetMidBlock2D",
        up_block_types: list[str] | None = None,
        layers_per_block: int = 2,
        add_attention: bool = True,
        attention_head_dim: int | None = 8,
        norm_num_groups: int = 8,
        norm_eps: float = 1e-5,
        attn_norm_num_groups: int | None = None,
        act_fn: str = "silu",
        dropout: float = 0.0,
        resnet_time_scale_shift: Literal["default", "scale_shift"] = "default",
        mid_block_scale_factor: float = 1.0,
        downsample_padding: int = 1,
        downsample_type: Literal["conv", "resnet"] = "conv",
        upsample_type: Literal["conv", "resnet"] = "conv",
        center_input_sample: bool = False,
        time_embedding_dim: int | None = None,
        freq_shift: int = 0,
        flip_sin_to_cos: bool = True,
        class_embed_type: Literal["identity"] | None = None,
        num_class_embeds: int | None = None,
        folder: str | None = None,
        pretrained: str | None = None,
        train: bool = True,
    ) -> None:
        super().__init__()
        check_unread("UNet2D", folder)
        size = check_maps("UNet2D", x, out)
        check_conditions("UNet2D", cond, ("vector", "labels", "concat"))
        check_halvings("UNet2D", size, len(block_out_channels) - 1)
        check_groups("UNet2D", block_out_channels, norm_num_groups)
        down, up = blocks(
            "UNet2D", len(block_out_channels), down_block_types, up_block_types, attends="AttnDownBlock2D"
        )
        attends = [channels for channels, kind in zip(block_out_channels, down) if "Attn" in kind]
        check_heads("UNet2D", [*attends, *block_out_channels[-1:] * add_attention], attention_head_dim)
        classes = class_embedding("UNet2D", cond, class_embed_type, num_class_embeds, of_vectors=("identity",))
        width = time_embedding_dim or cond.vector or 4 * block_out_channels[0]
        if cond.vector not in (None, width):
            raise ValueError(f"UNet2D expects a vector as wide as its time_embedding_dim {width}, got {cond.vector}")

        self._cond = cond
        self.join = MapJoin(x, cond.concat, block_out_channels[0])
        self.unet = made(
            "UNet2DModel",
            sample_size=size[0] if size[0] == size[1] else size,
            in_channels=check_channels("UNet2D", "in_channels", self.join.channels, in_channels),
            out_channels=check_channels("UNet2D", "out_channels", out.shape[0], out_channels),
            block_out_channels=tuple(block_out_channels),
            down_block_types=down,
            mid_block_type=mid_block_type,
            up_block_types=up,
            layers_per_block=layers_per_block,
            add_attention=add_attention,
            attention_head_dim=attention_head_dim,
            norm_num_groups=norm_num_groups,
            norm_eps=norm_eps,
            attn_norm_num_groups=attn_norm_num_groups,
            act_fn=act_fn,
            dropout=dropout,
            resnet_time_scale_shift=resnet_time_scale_shift,
            mid_block_scale_factor=mid_block_scale_factor,
            downsample_padding=downsample_padding,
            downsample_type=downsample_type,
            upsample_type=upsample_type,
            center_input_sample=center_input_sample,
            time_embedding_dim=width,
            freq_shift=freq_shift,
            flip_sin_to_cos=flip_sin_to_cos,
            **classes,
        )
        self._pretrained = pretrained
        if pretrained is not None and not train:
            self.requires_grad_(False)
            self.frozen = True

    @staticmethod
    def expanded(params: Mapping[str, Any]) -> dict[str, Any]:
        """The keywords that those of a spec stand for: the configuration in `folder` in its place."""
        return written_out(UNet2D, ("UNet2DModel",), params, unread=("sample_size",))

    def load_pretrained(self) -> None:
        """Takes the weights of the folder, where one was given."""
        if self._pretrained is not None:
            load("UNet2D", self.unet, self._pretrained)

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Evaluates the network at `x`, `b c h w`.

        Raises:
            ValueError: If a condition that the type has is missing.
        """
        time = timestep(self._cond, cond, x)
        labels = class_labels(self._cond, cond)
        out: Tensor = self.unet(self.join(x, cond.concat), time, class_labels=labels, return_dict=False)[0]
        return out
