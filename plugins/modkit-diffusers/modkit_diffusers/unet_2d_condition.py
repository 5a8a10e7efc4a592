"""diffusers' UNet2DConditionModel, the U-Net of latent diffusion and Stable Diffusion, as a network.

    out = UNet2DConditionModel([x, concat], time, encoder_hidden_states=context, class_labels)

Tokens are attended to, a vector is projected and added to the embedding of time, labels have an embedding each. Without
tokens, blocks must be of those that attend to none, as the default ones then are.

Shape letters: b batch, c channels, h w spatial, n tokens, d width.

References:
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), section 3.3,
    https://arxiv.org/abs/2112.10752
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
    check_maps,
    class_embedding,
    class_labels,
    made,
    required,
    timestep,
)
from modkit_diffusers.pretrained import check_unread, load, written_out

__all__ = ["UNet2DCondition"]

_FITTING = {"UpBlock2D", "CrossAttnUpBlock2D"}  # these double to a skip's own size, others to even ones


class UNet2DCondition(nn.Module):
    """diffusers' UNet2DConditionModel: residual blocks down and up a pyramid, with attention to tokens.

    Args:
        x: Type of the input: continuous maps, of any size where all blocks on the way up are `UpBlock2D` or
            `CrossAttnUpBlock2D`, else with sides that all halvings divide.
        out: Type of the output, of x's size.
        cond: The conditions: time, tokens, a vector or labels, a map beside x.
        in_channels: Channels of x and the map beside it; only compared, they are told.
        out_channels: Channels of the output; only compared, they are told.
        block_out_channels: Channels of each level, finest first; the resolution is halved between levels.
        down_block_types: Blocks of each level on the way down; None: `DownBlock2D`, then `CrossAttnDownBlock2D`, or
            `AttnDownBlock2D` where there are no tokens.
        mid_block_type: Block of the middle, or none; `auto`: the one with cross-attention where there are tokens.
        up_block_types: Blocks of each level on the way up; None: those of the way down, mirrored.
        layers_per_block: Residual blocks a level on the way down, of all or of each; one more on the way up.
        transformer_layers_per_block: Transformer blocks in each place that attends, of all levels or of each.
        cross_attention_dim: Width of the tokens; only compared, it is told.
        only_cross_attention: Whether blocks attend to tokens alone, and not to themselves.
        attention_head_dim: Number of heads in cross-attention, and channels of a head in self-attention (diffusers'
            own use of the name), of all levels or of each.
        use_linear_projection: Whether attention is entered and left by linear layers instead of 1x1 convolutions.
        upcast_attention: Whether attention is computed in float32.
        norm_num_groups: Groups of the normalisations.
        norm_eps: What normalisations add to a variance.
        act_fn: Activation of the residual blocks.
        dropout: Share of the values dropped in each block.
        resnet_time_scale_shift: Whether the embedding is added in residual blocks, or scales and shifts.
        mid_block_scale_factor: What the middle's outputs are divided by.
        downsample_padding: Padding of halvings; 0: at the end only.
        conv_in_kernel: Width of the first convolution.
        conv_out_kernel: Width of the last convolution.
        center_input_sample: Whether inputs in [0, 1] are mapped to [-1, 1].
        time_embedding_dim: Width of the embedding; None: four times the first level's channels.
        freq_shift: Taken off the number of frequencies that time is embedded by.
        flip_sin_to_cos: Whether cosines come before sines.
        class_embed_type: How a vector is embedded; None: `projection`, two layers.
        projection_class_embeddings_input_dim: Width of the vector that is projected; only compared, it is told.
        num_class_embeds: Number of labels' embeddings; None: one a label, and one for none.
        folder: A local folder that diffusers saved: its configuration and weights.
        pretrained: Folder of the weights to start from, beside a configuration that is written out.
        train: Whether weights from a folder go on training.

    Raises:
        ValueError: If the types are no maps of one size, channels are not divisible as the configuration needs it,
            blocks attend to tokens that there are not or to none where there are, or a condition has no input.
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
        mid_block_type: str | None = "auto",
        up_block_types: list[str] | None = None,
        layers_per_block: int | list[int] = 2,
        transformer_layers_per_block: int | list[int] = 1,
        cross_attention_dim: int | None = None,
        only_cross_attention: bool | list[bool] = False,
        attention_head_dim: int | list[int] = 8,
        use_linear_projection: bool = False,
        upcast_attention: bool = False,
        norm_num_groups: int = 8,
        norm_eps: float = 1e-5,
        act_fn: str = "silu",
        dropout: float = 0.0,
        resnet_time_scale_shift: Literal["default", "scale_shift"] = "default",
        mid_block_scale_factor: float = 1.0,
        downsample_padding: int = 1,
        conv_in_kernel: int = 3,
        conv_out_kernel: int = 3,
        center_input_sample: bool = False,
        time_embedding_dim: int | None = None,
        freq_shift: int = 0,
        flip_sin_to_cos: bool = True,
        class_embed_type: Literal["projection", "simple_projection", "identity"] | None = None,
        projection_class_embeddings_input_dim: int | None = None,
        num_class_embeds: int | None = None,
        folder: str | None = None,
        pretrained: str | None = None,
        train: bool = True,
    ) -> None:
        owner = type(self).__name__
        super().__init__()
        check_unread(owner, folder)
        size = check_maps(owner, x, out)
        check_conditions(owner, cond, ("vector", "labels", "context", "concat"))
        check_groups(owner, block_out_channels, norm_num_groups)
        attends = "CrossAttnDownBlock2D" if cond.context else "AttnDownBlock2D"
        down, up = blocks(owner, len(block_out_channels), down_block_types, up_block_types, attends=attends)
        if not _FITTING.issuperset(up):
            check_halvings(owner, size, len(block_out_channels) - 1)
        middle = mid_block_type
        if middle == "auto":
            middle = "UNetMidBlock2DCrossAttn" if cond.context else "UNetMidBlock2D"
        _check_tokens(owner, cond, (*down, *up, middle or ""), cross_attention_dim)
        kinds = ("projection", "simple_projection", "identity")
        classes = class_embedding(owner, cond, class_embed_type, num_class_embeds, of_vectors=kinds)
        width = time_embedding_dim or 4 * block_out_channels[0]
        if classes["class_embed_type"] == "identity":
            check_channels(owner, "a vector of width", cond.vector or 0, width)
        told = check_channels(
            owner, "projection_class_embeddings_input_dim", cond.vector or 0, projection_class_embeddings_input_dim
        )

        self._cond = cond
        self.join = MapJoin(x, cond.concat, block_out_channels[0])
        self.unet = made(
            "UNet2DConditionModel",
            sample_size=size[0] if size[0] == size[1] else size,
            in_channels=check_channels(owner, "in_channels", self.join.channels, in_channels),
            out_channels=check_channels(owner, "out_channels", out.shape[0], out_channels),
            block_out_channels=tuple(block_out_channels),
            down_block_types=down,
            mid_block_type=middle,
            up_block_types=up,
            layers_per_block=layers_per_block,
            transformer_layers_per_block=transformer_layers_per_block,
            cross_attention_dim=cond.context[1] if cond.context else cross_attention_dim or 1280,
            only_cross_attention=only_cross_attention,
            attention_head_dim=attention_head_dim,
            use_linear_projection=use_linear_projection,
            upcast_attention=upcast_attention,
            norm_num_groups=norm_num_groups,
            norm_eps=norm_eps,
            act_fn=act_fn,
            dropout=dropout,
            resnet_time_scale_shift=resnet_time_scale_shift,
            mid_block_scale_factor=mid_block_scale_factor,
            downsample_padding=downsample_padding,
            conv_in_kernel=conv_in_kernel,
            conv_out_kernel=conv_out_kernel,
            center_input_sample=center_input_sample,
            time_embedding_dim=time_embedding_dim,
            freq_shift=freq_shift,
            flip_sin_to_cos=flip_sin_to_cos,
            projection_class_embeddings_input_dim=told or None,
            **classes,
        )
        self._pretrained = pretrained
        if pretrained is not None and not train:
            self.requires_grad_(False)
            self.frozen = True

    @staticmethod
    def expanded(params: Mapping[str, Any]) -> dict[str, Any]:
        """The keywords that those of a spec stand for: the configuration in `folder` in its place."""
        return written_out(UNet2DCondition, ("UNet2DConditionModel",), params, unread=("sample_size",))

    def load_pretrained(self) -> None:
        """Takes the weights of the folder, where one was given."""
        if self._pretrained is not None:
            load(type(self).__name__, self.unet, self._pretrained)

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Evaluates the network at `x`, `b c h w`, with tokens `b n d`.

        Raises:
            ValueError: If a condition that the type has is missing.
        """
        out: Tensor = self.unet(
            self.join(x, cond.concat),
            timestep(self._cond, cond, x),
            encoder_hidden_states=required("context", cond.context) if self._cond.context else None,
            class_labels=class_labels(self._cond, cond),
            return_dict=False,
        )[0]
        return out


def _check_tokens(owner: str, cond: CondType, kinds: tuple[str, ...], width: int | None) -> None:
    """Checks that blocks attend to tokens where there are any, and only there.

    Raises:
        ValueError: If they do not, or the tokens are of another width.
    """
    attending = [kind for kind in kinds if "CrossAttn" in kind]
    if cond.context is None and attending:
        raise ValueError(f"{owner} expects tokens as a condition for {attending[0]}, got the conditions {cond}")
    if cond.context is not None and not attending:
        raise ValueError(f"{owner} expects blocks that attend to its tokens, got {', '.join(filter(None, kinds))}")
    if cond.context is not None:
        check_channels(owner, "cross_attention_dim", cond.context[1], width)
