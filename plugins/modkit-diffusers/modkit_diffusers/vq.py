r"""diffusers' VQModel, the first stage of latent diffusion with codes: its three parts, and the whole.

    h = Encoder(x),   z = quant_conv(h),   k = argmin_k |z - e_k|,   z_q = e_k,   dz_q / dz = I
    commitment = |z - sg e_k|^2 + 1/4 |sg z - e_k|^2        the 1/4 is where diffusers' VQModel has it
    out = Decoder(post_quant_conv(z_q), z_q)                z_q modulates the normalisations if they are `spatial`

A prior sees `scaling_factor z` for the latent `continuous`, if the configuration has that factor.

Shape letters: b batch, c channels, h w spatial.

References:
    Neural Discrete Representation Learning (van den Oord et al., 2017), eq. 3, https://arxiv.org/abs/1711.00937
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), section 3.1,
    https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, NoReturn

from torch import Tensor, nn

from modkit import kinds
from modkit.kinds import Slot, Step, default
from modkit.precision import widen
from modkit.rng import Rng
from modkit.types import Event, Latents, TensorType
from modkit_diffusers import helps
from modkit_diffusers.coders import Coder, Decoder, Encoder, Whole

__all__ = ["VQBottleneck", "VQDecoder", "VQEncoder", "VQModel"]

_BETA = 0.25  # of VQModel's quantizer
_SPATIAL_GROUPS = 32  # of diffusers' spatial normalisation, whatever norm_num_groups says


class VQEncoder(Encoder):
    """The encoder of diffusers' VQModel, before `quant_conv`.

    Args:
        x: Type of the data: continuous maps, whose sides can be halved at each level.
        latent_channels: Channels of the output.

    Raises:
        ValueError: If x is not a map whose sides can be halved at each level, or channels are not divisible.
    """


class VQBottleneck(Coder):
    """The quantizer of diffusers' VQModel, with `quant_conv` before it; a loss trains the codes.

    Args:
        h: Type of the features: maps.
        latent_channels: Channels of the features; only checked against them.
        vq_embed_dim: Channels of a code; by default as many as the features have.

    Raises:
        ValueError: If the features are not maps, their number differs from the configuration's, or a number is not
            positive.
    """

    pieces = ("quant_conv", "quantize")

    def __init__(
        self,
        h: TensorType,
        *,
        latent_channels: int | None = None,
        num_vq_embeddings: Annotated[int, helps.CODES] = 256,
        vq_embed_dim: int | None = None,
        scaling_factor: Annotated[float | None, helps.CONTINUOUS_SCALING] = None,
        folder: Annotated[str | None, helps.FOLDER] = None,
        pretrained: helps.Pretrained = None,
        train: Annotated[bool, helps.TRAIN] = False,
    ) -> None:
        super().__init__(locals())

    def _build(self, h: TensorType) -> None:
        from diffusers.models.autoencoders.vae import VectorQuantizer

        channels, size = self.check_maps("h", h)
        latent = self.agree("latent_channels", channels)
        num, width = self.config["num_vq_embeddings"], self.config["vq_embed_dim"]
        width = self.config["vq_embed_dim"] = latent if width is None else width
        if num < 1 or width < 1:
            expected = "num_vq_embeddings, vq_embed_dim of at least 1"
            raise ValueError(f"VQBottleneck expects {expected}, got {num}, {width}")
        vectors = TensorType((width, *size))
        codes = TensorType(size, classes=num)
        self.latents: dict[str, Event] = {"codes": codes, "continuous": vectors, "quantized": vectors}
        self.moments = self.read_moments()
        self.quant_conv = nn.Conv2d(latent, width, 1)
        self.quantize = VectorQuantizer(num, width, beta=_BETA)

    def forward(self, h: Tensor, step: Step | None) -> Latents:
        """Computes codes `b h w`, the vectors before them and the codes' embeddings, both `b c h w`, and `commitment`.

        Gradients of `quantized` pass to `continuous` unchanged, and do not reach the codes.
        """
        z = self.quant_conv(h)
        z_q, loss, (_, _, codes) = self.quantize(z)
        codes = codes.view(len(z), *z.shape[2:])
        return Latents({"codes": codes, "continuous": z, "quantized": z_q}, None, {"commitment": loss})

    def to_z(self, name: str, latent: Tensor) -> Tensor:
        """Returns the embeddings `b c h w` of codes or of the codes of `continuous`; `quantized` is returned unchanged.

        Raises:
            ValueError: If there is no latent of that name.
        """
        if name == "codes":
            return self.quantize.embedding(latent).movedim(-1, 1)
        if name == "continuous":
            return self.quantize(latent)[0]
        if name == "quantized":
            return latent
        raise ValueError(f"VQBottleneck expects one of the latents {list(self.latents)}, got {name!r}")

    def sample(self, num: int, rng: Rng) -> NoReturn:
        """Refuses, since codes have no prior here.

        Raises:
            ValueError: Always.
        """
        raise ValueError("VQBottleneck has no prior to sample from: compose the autoencoder with one by `latent`")

    def posterior(self, name: str, h: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """Returns the codes of `h`, and log q = 0, `b`, since they are a function of `h`.

        Raises:
            ValueError: If `name` is not `codes`: a deterministic continuous latent has no density.
        """
        if name != "codes":
            raise ValueError(f"VQBottleneck has a posterior of its codes only, {name!r} has no density")
        codes = self(h, None).values["codes"]
        return codes, widen(h).new_zeros(len(h))

    def log_prior(self, name: str, latent: Tensor) -> Tensor:
        """Computes the log probability of codes under the uniform prior of training, `b`: -n log K.

        Raises:
            ValueError: If `name` is not `codes`.
        """
        if name != "codes":
            raise ValueError(f"VQBottleneck has a prior of its codes only, none of {name!r}")
        log_p = -latent[0].numel() * math.log(self.quantize.n_e)
        return widen(self.quant_conv.weight).new_full((len(latent),), log_p)


class VQDecoder(Decoder):
    """The decoder of diffusers' VQModel, with `post_quant_conv` before it; clamped if x has a range.

    Args:
        z: Type of the codes' embeddings: as many halvings smaller than x as there are levels after the first.
        x: Type of the output.
        latent_channels: Channels of the decoder's input; by default as many as z has.
        vq_embed_dim: Channels of z; only checked against z.
        norm_type: Whether normalisations are scaled and shifted by the embeddings at each position (`spatial`).

    Raises:
        ValueError: If z has another size, or channels are not divisible as the configuration requires.
    """

    def __init__(
        self,
        z: TensorType,
        x: TensorType,
        *,
        out_channels: Annotated[int | None, helps.X_CHANNELS] = None,
        block_out_channels: Annotated[list[int], helps.DOUBLED_LEVELS] = [32, 64],  # noqa: B006
        up_block_types: Annotated[list[str] | None, helps.DECODER_LEVEL_BLOCKS] = None,
        layers_per_block: Annotated[int, helps.DECODER_LAYERS] = 1,
        act_fn: Annotated[str, helps.ACTIVATION] = "silu",
        latent_channels: int | None = None,
        vq_embed_dim: int | None = None,
        norm_num_groups: Annotated[int, helps.GROUPS] = 8,
        norm_type: Literal["group", "spatial"] = "group",
        mid_block_add_attention: Annotated[bool, helps.MIDDLE_ATTENDS] = True,
        folder: Annotated[str | None, helps.FOLDER] = None,
        pretrained: helps.Pretrained = None,
        train: Annotated[bool, helps.TRAIN] = False,
    ) -> None:
        super().__init__(locals())

    def _build(self, z: TensorType, x: TensorType) -> None:
        width = self.agree("vq_embed_dim", self.check_maps("z", z)[0])
        channels, latent, norm = (self.config[key] for key in ("block_out_channels", "latent_channels", "norm_type"))
        latent = self.config["latent_channels"] = width if latent is None else latent
        self._set_up_blocks()
        self._spatial = norm == "spatial"
        if self._spatial and (latent != width or any(wide % _SPATIAL_GROUPS for wide in channels)):
            expected = f"latent_channels as vq_embed_dim and block_out_channels that {_SPATIAL_GROUPS} divides"
            got = f"{latent}, {width} and {channels}"
            raise ValueError(f"VQDecoder expects {expected} for norm_type spatial, got {got}")
        self.decoder = self._make_decoder(z, x, latent, norm_type=norm)
        self.post_quant_conv = nn.Conv2d(width, latent, 1)

    def forward(self, z: Tensor) -> Tensor:
        """Decodes `z`, `b c h w`."""
        return self._clamp(self.decoder(self.post_quant_conv(z), z if self._spatial else None))


class VQModel(Whole):
    """diffusers' VQModel as a whole: an autoencoder of its three parts.

    Args:
        x: Type of the data: continuous maps, whose sides can be halved at each level.
        latent_channels: Channels between the pyramids and the 1x1 convolutions.
        vq_embed_dim: Channels of a code; by default `latent_channels`.
        norm_type: Whether the decoder's normalisations are scaled and shifted by the embeddings at each position
            (`spatial`).

    Raises:
        ValueError: If x is not a map whose sides can be halved at each level, or channels are not divisible.
    """

    origins = ("VQModel",)
    unread = ("sample_size", "force_upcast", "lookup_from_codebook")
    made_of = (VQEncoder, VQBottleneck, VQDecoder)

    def __init__(
        self,
        x: TensorType,
        *,
        in_channels: Annotated[int | None, helps.X_CHANNELS] = None,
        out_channels: Annotated[int | None, helps.DECODED_CHANNELS] = None,
        block_out_channels: Annotated[list[int], helps.LEVELS] = [32, 64],  # noqa: B006
        down_block_types: Annotated[list[str] | None, helps.ENCODER_BLOCKS] = None,
        up_block_types: Annotated[list[str] | None, helps.DECODER_BLOCKS] = None,
        layers_per_block: Annotated[int, helps.LAYERS] = 1,
        act_fn: Annotated[str, helps.ACTIVATION] = "silu",
        latent_channels: int = 4,
        num_vq_embeddings: Annotated[int, helps.CODES] = 256,
        vq_embed_dim: int | None = None,
        norm_num_groups: Annotated[int, helps.GROUPS] = 8,
        norm_type: Literal["group", "spatial"] = "group",
        mid_block_add_attention: Annotated[bool, helps.MIDDLES_ATTEND] = True,
        scaling_factor: Annotated[float | None, helps.CONTINUOUS_SCALING] = None,
        folder: Annotated[str | None, helps.FOLDER] = None,
        pretrained: helps.Pretrained = None,
        train: Annotated[bool, helps.TRAIN] = False,
        likelihood: Annotated[Slot[kinds.Likelihood], helps.LIKELIHOOD] = default("mse"),
        regularizers: Annotated[dict[str, Slot[kinds.Regularizer]] | None, helps.REGULARIZERS] = None,
        judges: Annotated[dict[str, Slot[kinds.Judge]] | None, helps.JUDGES] = None,
        weights: Annotated[dict[str, Slot[kinds.Weight] | float] | None, helps.WEIGHTS] = None,
    ) -> None:
        super().__init__(locals())
