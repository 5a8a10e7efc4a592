r"""diffusers' VQModel, the first stage of latent diffusion with codes, as three parts.

    h = Encoder(x),   z = quant_conv(h),   k = argmin_k |z - e_k|,   z_q = e_k,   dz_q / dz = I
    commitment = |z - sg e_k|^2 + 1/4 |sg z - e_k|^2        with the 1/4 where diffusers' VQModel has it
    out = Decoder(post_quant_conv(z_q), z_q)                z_q in the decoder's normalisations where they are `spatial`

A prior sees `scaling_factor z` of the latent `continuous`, where the configuration has that.

Shape letters: b batch, c channels, h w spatial.

References:
    Neural Discrete Representation Learning (van den Oord et al., 2017), eq. 3, https://arxiv.org/abs/1711.00937
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), section 3.1,
    https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NoReturn

from torch import Tensor, nn

from modkit.kinds import Step
from modkit.precision import widened
from modkit.rng import Rng
from modkit.types import Event, Latents, TensorType
from modkit_diffusers.coders import (
    Coder,
    bounded,
    coder_blocks,
    decoder_net,
    encoder_net,
    known_moments,
    map_type,
)
from modkit_diffusers.networks import check_channels
from modkit_diffusers.pretrained import check_unread, written_out

__all__ = ["SOURCE", "UNREAD", "VQBottleneck", "VQDecoder", "VQEncoder"]

SOURCE = "VQModel"
"""The class in diffusers."""
UNREAD = ("sample_size", "force_upcast", "lookup_from_codebook")
"""What only its pipelines read of its configuration."""
_BETA = 0.25  # what VQModel makes its quantizer with
_SPATIAL_GROUPS = 32  # of diffusers' spatial normalisation, whatever norm_num_groups says


class VQEncoder(Coder):
    """The encoder of diffusers' VQModel, before `quant_conv`.

    Args:
        x: Type of the data: continuous maps, whose sides all halvings divide.
        in_channels: Channels of x; only compared, they are told.
        block_out_channels: Channels of each level, finest first; the resolution is halved between levels.
        down_block_types: Blocks of each level; None: `DownEncoderBlock2D`.
        layers_per_block: Residual blocks a level.
        act_fn: Activation of the residual blocks.
        latent_channels: Channels that are emitted.
        norm_num_groups: Groups of the normalisations.
        mid_block_add_attention: Whether the middle attends.
        folder: A local folder that diffusers saved: its configuration and weights.
        pretrained: Folder of the weights to start from, beside a configuration that is written out.
        train: Whether weights from a folder go on training.

    Raises:
        ValueError: If x is no map that its levels halve, or channels are not divisible as the configuration needs it.
    """

    source = SOURCE
    pieces = ("encoder",)

    def __init__(
        self,
        x: TensorType,
        *,
        in_channels: int | None = None,
        block_out_channels: list[int] = [32, 64],  # noqa: B006
        down_block_types: list[str] | None = None,
        layers_per_block: int = 1,
        act_fn: str = "silu",
        latent_channels: int = 4,
        norm_num_groups: int = 8,
        mid_block_add_attention: bool = True,
        folder: str | None = None,
        pretrained: str | None = None,
        train: bool = False,
    ) -> None:
        super().__init__()
        check_unread("VQEncoder", folder)
        plain = "DownEncoderBlock2D"
        self.config = {
            "in_channels": in_channels,
            "block_out_channels": list(block_out_channels),
            "down_block_types": coder_blocks(
                "VQEncoder", "down_block_types", plain, block_out_channels, down_block_types
            ),
            "layers_per_block": layers_per_block,
            "act_fn": act_fn,
            "latent_channels": latent_channels,
            "norm_num_groups": norm_num_groups,
            "mid_block_add_attention": mid_block_add_attention,
        }
        self.encoder = encoder_net("VQEncoder", x, latent_channels, self.config, double=False)
        self.config["in_channels"], *size = x.shape
        self.config["sample_size"] = size[0]
        factor = 2 ** (len(block_out_channels) - 1)
        self.h: Event = TensorType((latent_channels, *(side // factor for side in size)))
        self.start_from(pretrained, train)

    @staticmethod
    def expanded(params: Mapping[str, Any]) -> dict[str, Any]:
        """The keywords that those of a spec stand for: the configuration in `folder` in its place."""
        return written_out(VQEncoder, (SOURCE,), params, beside=(VQBottleneck, VQDecoder), unread=UNREAD)

    def forward(self, x: Tensor) -> Tensor:
        """Encodes `x`, `b c h w`."""
        h: Tensor = self.encoder(x)
        return h


class VQBottleneck(Coder):
    """The quantizer of diffusers' VQModel, with `quant_conv` before it; a loss moves the codes.

    Args:
        h: Type of the features: maps.
        latent_channels: Channels of the features; only compared, they are told.
        num_vq_embeddings: Number of codes.
        vq_embed_dim: Channels of a code; None: as many as the features have.
        scaling_factor: What a prior sees the latent `continuous` multiplied by; None: `latent` measures it.
        folder: A local folder that diffusers saved: its configuration and weights.
        pretrained: Folder of the weights to start from, beside a configuration that is written out.
        train: Whether weights from a folder go on training.

    Raises:
        ValueError: If the features are no maps, or as many as the configuration does not expect, or a number is not
            positive.
    """

    source = SOURCE
    pieces = ("quant_conv", "quantize")

    def __init__(
        self,
        h: TensorType,
        *,
        latent_channels: int | None = None,
        num_vq_embeddings: int = 256,
        vq_embed_dim: int | None = None,
        scaling_factor: float | None = None,
        folder: str | None = None,
        pretrained: str | None = None,
        train: bool = False,
    ) -> None:
        super().__init__()
        check_unread("VQBottleneck", folder)
        told, size = map_type("VQBottleneck", "h", h)
        latent = check_channels("VQBottleneck", "latent_channels", told, latent_channels)
        width = latent if vq_embed_dim is None else vq_embed_dim
        if num_vq_embeddings < 1 or width < 1:
            got = f"{num_vq_embeddings}, {width}"
            raise ValueError(f"VQBottleneck expects num_vq_embeddings, vq_embed_dim of at least 1, got {got}")

        from diffusers.models.autoencoders.vae import VectorQuantizer

        self.config = {
            "latent_channels": latent,
            "num_vq_embeddings": num_vq_embeddings,
            "vq_embed_dim": width,
            "scaling_factor": scaling_factor,
        }
        self.latents: dict[str, Event] = {
            "codes": TensorType(size, classes=num_vq_embeddings),
            "continuous": TensorType((width, *size)),
            "quantized": TensorType((width, *size)),
        }
        self.moments = known_moments("VQBottleneck", scaling_factor)
        self.quant_conv = nn.Conv2d(latent, width, 1)
        self.quantize = VectorQuantizer(num_vq_embeddings, width, beta=_BETA)
        self.start_from(pretrained, train)

    @staticmethod
    def expanded(params: Mapping[str, Any]) -> dict[str, Any]:
        """The keywords that those of a spec stand for: the configuration in `folder` in its place."""
        return written_out(VQBottleneck, (SOURCE,), params, beside=(VQEncoder, VQDecoder), unread=UNREAD)

    def forward(self, h: Tensor, step: Step | None) -> Latents:
        """Codes `b h w`, the vectors before them and the codes' embeddings, both `b c h w`, and `commitment`.

        Gradients of `quantized` pass to `continuous` unchanged, and none reach the codes through it.
        """
        z = self.quant_conv(h)
        z_q, loss, (_, _, codes) = self.quantize(z)
        codes = codes.view(len(z), *z.shape[2:])
        return Latents({"codes": codes, "continuous": z, "quantized": z_q}, None, {"commitment": loss})

    def to_z(self, name: str, latent: Tensor) -> Tensor:
        """Embeddings `b c h w` of codes, or of the codes of `continuous`; `quantized` as it is.

        Raises:
            ValueError: If there is no latent of that name.
        """
        if name == "codes":
            return self.quantize.embedding(latent).movedim(-1, 1)  # type: ignore[no-any-return]
        if name == "continuous":
            return self.quantize(latent)[0]  # type: ignore[no-any-return]
        if name == "quantized":
            return latent
        raise ValueError(f"VQBottleneck expects one of the latents {list(self.latents)}, got {name!r}")

    def sample(self, num: int, rng: Rng) -> NoReturn:
        """Refuses: codes have no prior of their own.

        Raises:
            ValueError: Always.
        """
        raise ValueError("VQBottleneck has no prior to sample from: compose the autoencoder with one by `latent`")

    def posterior(self, name: str, h: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """The codes of `h`, and log q = 0, `b`: they are a function of `h`.

        Raises:
            ValueError: If `name` is not `codes`: what is continuous and certain has no density.
        """
        if name != "codes":
            raise ValueError(f"VQBottleneck has a posterior of its codes alone, {name!r} has no density")
        codes = self(h, None).values["codes"]
        return codes, widened(h).new_zeros(len(h))

    def log_prior(self, name: str, latent: Tensor) -> Tensor:
        """The log probability of codes under the uniform prior of training, `b`: -n log K.

        Raises:
            ValueError: If `name` is not `codes`.
        """
        if name != "codes":
            raise ValueError(f"VQBottleneck has a prior of its codes alone, none of {name!r}")
        log_p = -latent[0].numel() * math.log(self.quantize.n_e)
        return widened(self.quant_conv.weight).new_full((len(latent),), log_p)


class VQDecoder(Coder):
    """The decoder of diffusers' VQModel, with `post_quant_conv` before it; clamped where x has a range.

    Args:
        z: Type of the codes' embeddings: as many halvings below x as there are levels after the first.
        x: Type to emit.
        out_channels: Channels of x; only compared, they are told.
        block_out_channels: Channels of each level, finest first; the resolution is doubled between levels.
        up_block_types: Blocks of each level, coarsest first; None: `UpDecoderBlock2D`.
        layers_per_block: Residual blocks a level, less one.
        act_fn: Activation of the residual blocks.
        latent_channels: Channels that the decoder is fed; None: as many as z has.
        vq_embed_dim: Channels of z; only compared, they are told.
        norm_num_groups: Groups of the normalisations.
        norm_type: Whether normalisations are scaled and shifted by the embeddings at each position (`spatial`).
        mid_block_add_attention: Whether the middle attends.
        folder: A local folder that diffusers saved: its configuration and weights.
        pretrained: Folder of the weights to start from, beside a configuration that is written out.
        train: Whether weights from a folder go on training.

    Raises:
        ValueError: If z is of another size, or channels are not divisible as the configuration needs it.
    """

    source = SOURCE
    pieces = ("post_quant_conv", "decoder")
    last_layer: str | None = "decoder.conv_out.weight"

    def __init__(
        self,
        z: TensorType,
        x: TensorType,
        *,
        out_channels: int | None = None,
        block_out_channels: list[int] = [32, 64],  # noqa: B006
        up_block_types: list[str] | None = None,
        layers_per_block: int = 1,
        act_fn: str = "silu",
        latent_channels: int | None = None,
        vq_embed_dim: int | None = None,
        norm_num_groups: int = 8,
        norm_type: Literal["group", "spatial"] = "group",
        mid_block_add_attention: bool = True,
        folder: str | None = None,
        pretrained: str | None = None,
        train: bool = False,
    ) -> None:
        super().__init__()
        check_unread("VQDecoder", folder)
        told, _ = map_type("VQDecoder", "z", z)
        width = check_channels("VQDecoder", "vq_embed_dim", told, vq_embed_dim)
        latent = width if latent_channels is None else latent_channels
        self.config = {
            "out_channels": out_channels,
            "block_out_channels": list(block_out_channels),
            "up_block_types": coder_blocks(
                "VQDecoder", "up_block_types", "UpDecoderBlock2D", block_out_channels, up_block_types
            ),
            "layers_per_block": layers_per_block,
            "act_fn": act_fn,
            "latent_channels": latent,
            "vq_embed_dim": width,
            "norm_num_groups": norm_num_groups,
            "norm_type": norm_type,
            "mid_block_add_attention": mid_block_add_attention,
        }
        self._x, self._spatial = x, norm_type == "spatial"
        if self._spatial and (latent != width or any(wide % _SPATIAL_GROUPS for wide in block_out_channels)):
            expected = f"latent_channels as vq_embed_dim and block_out_channels that {_SPATIAL_GROUPS} divides"
            got = f"{latent}, {width} and {list(block_out_channels)}"
            raise ValueError(f"VQDecoder expects {expected} for norm_type spatial, got {got}")
        self.decoder = decoder_net("VQDecoder", z, x, latent, self.config)
        self.post_quant_conv = nn.Conv2d(width, latent, 1)
        self.config["out_channels"] = x.shape[0]
        self.start_from(pretrained, train)

    @staticmethod
    def expanded(params: Mapping[str, Any]) -> dict[str, Any]:
        """The keywords that those of a spec stand for: the configuration in `folder` in its place."""
        return written_out(VQDecoder, (SOURCE,), params, beside=(VQEncoder, VQBottleneck), unread=UNREAD)

    def forward(self, z: Tensor) -> Tensor:
        """Decodes `z`, `b c h w`."""
        return bounded(self.decoder(self.post_quant_conv(z), z if self._spatial else None), self._x)
