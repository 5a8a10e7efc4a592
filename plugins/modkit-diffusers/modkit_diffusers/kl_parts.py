r"""diffusers' AutoencoderKL, the first stage of latent diffusion, as three parts.

    h = Encoder(x),   (mean, logvar) = quant_conv(h),   z = mean + exp(logvar / 2) noise
    KL(q(z | x) || N(0, I)) = 1/2 sum(mean^2 + exp(logvar) - 1 - logvar)        H(q) = 1/2 sum(logvar + log(2 pi e))
    out = Decoder(post_quant_conv(z))

A prior sees `scaling_factor (z - shift_factor)`, where the configuration has these; what is encoded and decoded is z.

Shape letters: b batch, c channels, h w spatial.

References:
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), section 3.1 and appendix G,
    https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
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

__all__ = ["SOURCE", "UNREAD", "KLBottleneck", "KLDecoder", "KLEncoder"]

SOURCE = "AutoencoderKL"
"""The class in diffusers."""
UNREAD = ("sample_size", "force_upcast")
"""What only its pipelines read of its configuration."""
_LOG_TWO_PI = math.log(2 * math.pi)


class KLEncoder(Coder):
    """The encoder of diffusers' AutoencoderKL: mean and log variance before `quant_conv`.

    Args:
        x: Type of the data: continuous maps, whose sides all halvings divide.
        in_channels: Channels of x; only compared, they are told.
        block_out_channels: Channels of each level, finest first; the resolution is halved between levels.
        down_block_types: Blocks of each level; None: `DownEncoderBlock2D`.
        layers_per_block: Residual blocks a level.
        act_fn: Activation of the residual blocks.
        latent_channels: Channels of the latent; twice as many are emitted.
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
        check_unread("KLEncoder", folder)
        plain = "DownEncoderBlock2D"
        self.config = {
            "in_channels": in_channels,
            "block_out_channels": list(block_out_channels),
            "down_block_types": coder_blocks(
                "KLEncoder", "down_block_types", plain, block_out_channels, down_block_types
            ),
            "layers_per_block": layers_per_block,
            "act_fn": act_fn,
            "latent_channels": latent_channels,
            "norm_num_groups": norm_num_groups,
            "mid_block_add_attention": mid_block_add_attention,
        }
        self.encoder = encoder_net("KLEncoder", x, latent_channels, self.config, double=True)
        self.config["in_channels"], *size = x.shape
        self.config["sample_size"] = size[0]
        factor = 2 ** (len(block_out_channels) - 1)
        self.h: Event = TensorType((2 * latent_channels, *(side // factor for side in size)))
        self.start_from(pretrained, train)

    @staticmethod
    def expanded(params: Mapping[str, Any]) -> dict[str, Any]:
        """The keywords that those of a spec stand for: the configuration in `folder` in its place."""
        return written_out(KLEncoder, (SOURCE,), params, beside=(KLBottleneck, KLDecoder), unread=UNREAD)

    def forward(self, x: Tensor) -> Tensor:
        """Encodes `x`, `b c h w`, as mean and log variance before `quant_conv`."""
        h: Tensor = self.encoder(x)
        return h


class KLBottleneck(Coder):
    """The posterior of diffusers' AutoencoderKL, a diagonal Gaussian, under a standard normal prior.

    Args:
        h: Type of the features: an even number of channels, half of them means.
        latent_channels: Channels of the latent; only compared, they are told.
        use_quant_conv: Whether a 1x1 convolution stands before the posterior.
        scaling_factor: What a prior sees the latent multiplied by; None: `latent` measures it.
        shift_factor: What is taken off the latent first.
        folder: A local folder that diffusers saved: its configuration and weights.
        pretrained: Folder of the weights to start from, beside a configuration that is written out.
        train: Whether weights from a folder go on training.

    Raises:
        ValueError: If the features are no maps, an odd number of them or as many as the configuration does not expect,
            or `scaling_factor` is not positive.
    """

    source = SOURCE
    pieces = ("quant_conv",)
    _like: Tensor

    def __init__(
        self,
        h: TensorType,
        *,
        latent_channels: int | None = None,
        use_quant_conv: bool = True,
        scaling_factor: float | None = None,
        shift_factor: float | None = None,
        folder: str | None = None,
        pretrained: str | None = None,
        train: bool = False,
    ) -> None:
        super().__init__()
        check_unread("KLBottleneck", folder)
        channels, size = map_type("KLBottleneck", "h", h)
        if channels % 2:
            raise ValueError(f"KLBottleneck expects h of as many means as log variances, got {channels} channels")
        latent = check_channels("KLBottleneck", "latent_channels", channels // 2, latent_channels)
        self.config = {
            "latent_channels": latent,
            "use_quant_conv": use_quant_conv,
            "scaling_factor": scaling_factor,
            "shift_factor": shift_factor,
        }
        self._z = TensorType((latent, *size))
        self.latents: dict[str, Event] = {"continuous": self._z}
        self.moments = known_moments("KLBottleneck", scaling_factor, shift_factor)
        self.quant_conv = nn.Conv2d(channels, channels, 1) if use_quant_conv else None
        self.register_buffer("_like", torch.empty(0), persistent=False)  # knows dtype and device
        self.start_from(pretrained, train)

    @staticmethod
    def expanded(params: Mapping[str, Any]) -> dict[str, Any]:
        """The keywords that those of a spec stand for: the configuration in `folder` in its place."""
        return written_out(KLBottleneck, (SOURCE,), params, beside=(KLEncoder, KLDecoder), unread=UNREAD)

    def forward(self, h: Tensor, step: Step | None) -> Latents:
        """A reparametrised draw of z, `b c h w`, and its KL in nats, `b`; the mean without a step."""
        mean, logvar = self._statistics(h)
        kl = 0.5 * (mean.square() + logvar.expm1() - logvar).flatten(1).sum(1)
        z = mean if step is None else mean + (logvar / 2).exp() * step.rng.normal("posterior", mean)
        return Latents({"continuous": z.to(h.dtype)}, kl, {})

    def to_z(self, name: str, latent: Tensor) -> Tensor:
        """`latent` itself.

        Raises:
            ValueError: If `name` is not `continuous`.
        """
        if name not in self.latents:
            raise ValueError(f"KLBottleneck expects the latent 'continuous', got {name!r}")
        return latent

    def sample(self, num: int, rng: Rng) -> Tensor:
        """Standard normal z, `num c h w`."""
        return rng.normal("prior", self._like.new_empty((num, *self._z.shape)))

    def posterior(self, name: str, h: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """The draw of z that `forward` makes with this rng, `b c h w`, and log q(z | h) in nats, `b`."""
        mean, logvar = self._statistics(h)
        noise = rng.normal("posterior", mean)
        z = self.to_z(name, mean + (logvar / 2).exp() * noise)
        return z.to(h.dtype), -0.5 * (noise.square() + logvar + _LOG_TWO_PI).flatten(1).sum(1)

    def posterior_entropy(self, name: str, h: Tensor) -> Tensor:
        """The entropy of q(z | h) in nats, `b`."""
        logvar = self.to_z(name, self._statistics(h)[1])
        return 0.5 * (logvar + 1 + _LOG_TWO_PI).flatten(1).sum(1)

    def log_prior(self, name: str, latent: Tensor) -> Tensor:
        """The log density of z under N(0, I) in nats, `b`."""
        return -0.5 * (widened(self.to_z(name, latent)).square() + _LOG_TWO_PI).flatten(1).sum(1)

    def _statistics(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, logvar), `b c h w`, float32 at least, clamped as diffusers does."""
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        posterior = DiagonalGaussianDistribution(widened(h if self.quant_conv is None else self.quant_conv(h)))
        return posterior.mean, posterior.logvar


class KLDecoder(Coder):
    """The decoder of diffusers' AutoencoderKL, with `post_quant_conv` before it; clamped where x has a range.

    Args:
        z: Type of the latent: as many halvings below x as there are levels after the first.
        x: Type to emit.
        out_channels: Channels of x; only compared, they are told.
        block_out_channels: Channels of each level, finest first; the resolution is doubled between levels.
        up_block_types: Blocks of each level, coarsest first; None: `UpDecoderBlock2D`.
        layers_per_block: Residual blocks a level, less one.
        act_fn: Activation of the residual blocks.
        latent_channels: Channels of the latent; only compared, they are told.
        norm_num_groups: Groups of the normalisations.
        mid_block_add_attention: Whether the middle attends.
        use_post_quant_conv: Whether a 1x1 convolution stands before the decoder.
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
        norm_num_groups: int = 8,
        mid_block_add_attention: bool = True,
        use_post_quant_conv: bool = True,
        folder: str | None = None,
        pretrained: str | None = None,
        train: bool = False,
    ) -> None:
        super().__init__()
        check_unread("KLDecoder", folder)
        told, _ = map_type("KLDecoder", "z", z)
        latent = check_channels("KLDecoder", "latent_channels", told, latent_channels)
        self.config = {
            "out_channels": out_channels,
            "block_out_channels": list(block_out_channels),
            "up_block_types": coder_blocks(
                "KLDecoder", "up_block_types", "UpDecoderBlock2D", block_out_channels, up_block_types
            ),
            "layers_per_block": layers_per_block,
            "act_fn": act_fn,
            "latent_channels": latent,
            "norm_num_groups": norm_num_groups,
            "mid_block_add_attention": mid_block_add_attention,
            "use_post_quant_conv": use_post_quant_conv,
        }
        self._x = x
        self.post_quant_conv = nn.Conv2d(latent, latent, 1) if use_post_quant_conv else None
        self.decoder = decoder_net("KLDecoder", z, x, latent, self.config)
        self.config["out_channels"] = x.shape[0]
        self.start_from(pretrained, train)

    @staticmethod
    def expanded(params: Mapping[str, Any]) -> dict[str, Any]:
        """The keywords that those of a spec stand for: the configuration in `folder` in its place."""
        return written_out(KLDecoder, (SOURCE,), params, beside=(KLEncoder, KLBottleneck), unread=UNREAD)

    def forward(self, z: Tensor) -> Tensor:
        """Decodes `z`, `b c h w`."""
        return bounded(self.decoder(z if self.post_quant_conv is None else self.post_quant_conv(z)), self._x)
