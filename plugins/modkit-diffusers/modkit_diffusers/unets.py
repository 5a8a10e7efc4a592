"""diffusers' U-Nets as networks: UNet2DModel of DDPM and ADM, UNet2DConditionModel of latent diffusion.

    out = UNet2DModel([x, concat], time, class_labels)
    out = UNet2DConditionModel([x, concat], time, encoder_hidden_states=context, class_labels)

A vector is added to the embedding of time, in UNet2DModel unchanged (`identity`), in the other projected; each label
has an embedding. Without tokens, no block may attend to any; the default blocks are chosen accordingly.

Shape letters: b batch, c channels, h w spatial, n tokens, d width.

References:
    Denoising Diffusion Probabilistic Models (Ho et al., 2020), appendix B, https://arxiv.org/abs/2006.11239
    Diffusion Models Beat GANs on Image Synthesis (Dhariwal & Nichol, 2021), https://arxiv.org/abs/2105.05233
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), section 3.3,
    https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

from modkit.types import Cond, CondType, TensorType
from modkit_diffusers import helps
from modkit_diffusers.configured import check_agreement
from modkit_diffusers.networks import Network, require

__all__ = ["UNet2D", "UNet2DCondition"]

_FITTING = {"UpBlock2D", "CrossAttnUpBlock2D"}  # these upsample to the size of a skip, others to twice their input


class UNet2D(Network):
    """diffusers' UNet2DModel: residual blocks down and up a pyramid, with self-attention.

    Args:
        x: Type of the input: continuous maps, whose sides can be halved at each level.
        out: Type of the output, of x's size.
        cond: The conditions: time, a vector or labels, a map concatenated with x.
        down_block_types: Blocks of each level on the way down; by default `DownBlock2D`, then `AttnDownBlock2D`.
        mid_block_type: Block of the middle, or none.
        layers_per_block: Residual blocks per level on the way down; there is one more on the way up.
        attention_head_dim: Channels of an attention head; with None, there is one head.
        attn_norm_num_groups: Groups of the middle's normalisation before attention; by default `norm_num_groups`.
        dropout: Probability of dropout in each residual block.
        downsample_type: Whether to downsample by a convolution or a residual block.
        upsample_type: Whether to upsample by a convolution or a residual block.
        time_embedding_dim: Width of the embedding; by default that of the vector, if any, or four times the channels of
            the first level.
        class_embed_type: How a vector is embedded.

    Raises:
        ValueError: If the types are not maps of one size, a side or a number of channels is not divisible as the
            configuration requires, or a condition has no input.
    """

    origins = ("UNet2DModel",)
    unread = ("sample_size",)
    takes = ("vector", "labels", "concat")

    def __init__(
        self,
        x: TensorType,
        out: TensorType,
        cond: CondType,
        *,
        in_channels: Annotated[int | None, helps.IN_CHANNELS] = None,
        out_channels: Annotated[int | None, helps.OUT_CHANNELS] = None,
        block_out_channels: Annotated[list[int], helps.LEVELS] = [32, 64],  # noqa: B006
        down_block_types: list[str] | None = None,
        mid_block_type: Literal["UNetMidBlock2D"] | None = "UNetMidBlock2D",
        up_block_types: Annotated[list[str] | None, helps.UP_BLOCKS] = None,
        layers_per_block: int = 2,
        add_attention: Annotated[bool, helps.MIDDLE_ATTENDS] = True,
        attention_head_dim: int | None = 8,
        norm_num_groups: Annotated[int, helps.GROUPS] = 8,
        norm_eps: Annotated[float, helps.NORM_EPS] = 1e-5,
        attn_norm_num_groups: int | None = None,
        act_fn: Annotated[str, helps.ACTIVATION] = "silu",
        dropout: float = 0.0,
        resnet_time_scale_shift: Annotated[Literal["default", "scale_shift"], helps.TIME_SHIFT] = "default",
        mid_block_scale_factor: Annotated[float, helps.MID_SCALE] = 1.0,
        downsample_padding: Annotated[int, helps.PADDING] = 1,
        downsample_type: Literal["conv", "resnet"] = "conv",
        upsample_type: Literal["conv", "resnet"] = "conv",
        center_input_sample: Annotated[bool, helps.CENTER] = False,
        time_embedding_dim: int | None = None,
        freq_shift: Annotated[int, helps.FREQ_SHIFT] = 0,
        flip_sin_to_cos: Annotated[bool, helps.COSINES_FIRST] = True,
        class_embed_type: Literal["identity"] | None = None,
        num_class_embeds: Annotated[int | None, helps.CLASS_EMBEDS] = None,
        folder: Annotated[str | None, helps.FOLDER] = None,
        pretrained: helps.Pretrained = None,
        train: Annotated[bool, helps.TRAIN] = True,
    ) -> None:
        super().__init__(locals())

    def _configure(self, size: tuple[int, int], cond: CondType) -> int:
        channels, head = self.config["block_out_channels"], self.config["attention_head_dim"]
        self._check_conditions(cond)
        self.check_halvings(size)
        self.check_groups()
        down, _ = self._set_mirrored_blocks("AttnDownBlock2D")
        attend = [wide for wide, kind in zip(channels, down) if "Attn" in kind]
        attend += channels[-1:] * self.config["add_attention"]
        if head is not None and (head < 1 or any(wide % head for wide in attend)):
            raise ValueError(f"{self.owner} expects channels that attention_head_dim {head} divides, got {attend}")
        self._set_class_embedding(cond, "identity")
        width = self.config["time_embedding_dim"] or cond.vector or 4 * channels[0]
        if cond.vector not in (None, width):
            expected = f"a vector as wide as its time_embedding_dim {width}"
            raise ValueError(f"{self.owner} expects {expected}, got {cond.vector}")
        self.config["time_embedding_dim"] = width
        return channels[0]


class UNet2DCondition(Network):
    """diffusers' UNet2DConditionModel: residual blocks down and up a pyramid, with attention to tokens.

    Args:
        x: Type of the input: continuous maps, of any size if all blocks on the way up are `UpBlock2D` or
            `CrossAttnUpBlock2D`, otherwise with sides that can be halved at each level.
        out: Type of the output, of x's size.
        cond: The conditions: time, tokens, a vector or labels, a map concatenated with x.
        down_block_types: Blocks of each level on the way down; by default `DownBlock2D`, then `CrossAttnDownBlock2D`,
            or `AttnDownBlock2D` without tokens.
        mid_block_type: Block of the middle, or none; `auto` chooses the one with cross-attention if there are tokens.
        layers_per_block: Residual blocks per level on the way down, for all levels or each; there is one more on the
            way up.
        transformer_layers_per_block: Number of transformer blocks where a level attends, for all levels or each.
        cross_attention_dim: Width of the tokens; only checked against the conditions.
        only_cross_attention: Whether blocks attend to tokens only, without self-attention.
        attention_head_dim: Number of heads in cross-attention, and channels of a head in self-attention (diffusers'
            own use of the name), for all levels or each.
        use_linear_projection: Whether the projections around attention are linear layers instead of 1x1 convolutions.
        conv_in_kernel: Width of the first convolution.
        conv_out_kernel: Width of the last convolution.
        time_embedding_dim: Width of the embedding; by default four times the channels of the first level.
        class_embed_type: How a vector is embedded; by default `projection`, two layers.
        projection_class_embeddings_input_dim: Width of the projected vector; only checked against the conditions.

    Raises:
        ValueError: If the types are not maps of one size, channels are not divisible as the configuration requires,
            blocks attend to missing tokens or none attend to given ones, or a condition has no input.
    """

    origins = ("UNet2DConditionModel",)
    unread = ("sample_size",)
    takes = ("vector", "labels", "context", "concat")

    def __init__(
        self,
        x: TensorType,
        out: TensorType,
        cond: CondType,
        *,
        in_channels: Annotated[int | None, helps.IN_CHANNELS] = None,
        out_channels: Annotated[int | None, helps.OUT_CHANNELS] = None,
        block_out_channels: Annotated[list[int], helps.LEVELS] = [32, 64],  # noqa: B006
        down_block_types: list[str] | None = None,
        mid_block_type: str | None = "auto",
        up_block_types: Annotated[list[str] | None, helps.UP_BLOCKS] = None,
        layers_per_block: int | list[int] = 2,
        transformer_layers_per_block: int | list[int] = 1,
        cross_attention_dim: int | None = None,
        only_cross_attention: bool | list[bool] = False,
        attention_head_dim: int | list[int] = 8,
        use_linear_projection: bool = False,
        upcast_attention: Annotated[bool, helps.UPCAST] = False,
        norm_num_groups: Annotated[int, helps.GROUPS] = 8,
        norm_eps: Annotated[float, helps.NORM_EPS] = 1e-5,
        act_fn: Annotated[str, helps.ACTIVATION] = "silu",
        dropout: Annotated[float, helps.DROPOUT] = 0.0,
        resnet_time_scale_shift: Annotated[Literal["default", "scale_shift"], helps.TIME_SHIFT] = "default",
        mid_block_scale_factor: Annotated[float, helps.MID_SCALE] = 1.0,
        downsample_padding: Annotated[int, helps.PADDING] = 1,
        conv_in_kernel: int = 3,
        conv_out_kernel: int = 3,
        center_input_sample: Annotated[bool, helps.CENTER] = False,
        time_embedding_dim: int | None = None,
        freq_shift: Annotated[int, helps.FREQ_SHIFT] = 0,
        flip_sin_to_cos: Annotated[bool, helps.COSINES_FIRST] = True,
        class_embed_type: Literal["projection", "simple_projection", "identity"] | None = None,
        projection_class_embeddings_input_dim: int | None = None,
        num_class_embeds: Annotated[int | None, helps.CLASS_EMBEDS] = None,
        folder: Annotated[str | None, helps.FOLDER] = None,
        pretrained: helps.Pretrained = None,
        train: Annotated[bool, helps.TRAIN] = True,
    ) -> None:
        super().__init__(locals())

    def _configure(self, size: tuple[int, int], cond: CondType) -> int:
        config, projected = self.config, "projection_class_embeddings_input_dim"
        self._check_conditions(cond)
        self.check_groups()
        down, up = self._set_mirrored_blocks("CrossAttnDownBlock2D" if cond.context else "AttnDownBlock2D")
        if not _FITTING.issuperset(up):
            self.check_halvings(size)
        if config["mid_block_type"] == "auto":
            config["mid_block_type"] = "UNetMidBlock2DCrossAttn" if cond.context else "UNetMidBlock2D"
        self._check_tokens(cond, [*down, *up, config["mid_block_type"] or ""])
        self._set_class_embedding(cond, "projection")
        wide = config["block_out_channels"][0]
        if config["class_embed_type"] == "identity":
            width = config["time_embedding_dim"] or 4 * wide
            check_agreement(self.owner, "a vector of width", cond.vector or 0, width)
        config[projected] = self.agree(projected, cond.vector or 0) or None
        return wide

    def _check_tokens(self, cond: CondType, kinds: list[str]) -> None:
        """Checks that blocks attend to tokens if and only if there are any, and sets the tokens' width."""
        attending = [kind for kind in kinds if "CrossAttn" in kind]
        if cond.context is None and attending:
            raise ValueError(
                f"{self.owner} expects tokens as a condition for {attending[0]}, got the conditions {cond}"
            )
        if cond.context is None:
            self.config["cross_attention_dim"] = self.config["cross_attention_dim"] or 1280  # as the class has it
            return
        if not attending:
            expected = "blocks that attend to its tokens"
            raise ValueError(f"{self.owner} expects {expected}, got {', '.join(filter(None, kinds))}")
        self.agree("cross_attention_dim", cond.context[1])

    def _collect(self, x: Tensor, cond: Cond) -> dict[str, Tensor | None]:
        tokens = require("context", cond.context) if self._cond.context else None
        return {"encoder_hidden_states": tokens, **super()._collect(x, cond)}
