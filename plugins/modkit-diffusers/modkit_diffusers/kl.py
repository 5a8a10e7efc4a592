r"""diffusers' AutoencoderKL, the first stage of latent diffusion: its three parts, and the whole.

    h = Encoder(x),   (mean, logvar) = quant_conv(h),   z = mean + exp(logvar / 2) noise
    KL(q(z | x) || N(0, I)) = 1/2 sum(mean^2 + exp(logvar) - 1 - logvar)        H(q) = 1/2 sum(logvar + log(2 pi e))
    out = Decoder(post_quant_conv(z))

A prior sees `scaling_factor (z - shift_factor)`, if the configuration has these; encoding and decoding use z itself.

Shape letters: b batch, c channels, h w spatial.

References:
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), section 3.1 and appendix G,
    https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn

from modkit import kinds
from modkit.kinds import Slot, Step, default
from modkit.precision import widen
from modkit.rng import Rng
from modkit.types import Event, Latents, TensorType
from modkit_diffusers import helps
from modkit_diffusers.coders import Coder, Decoder, Encoder, Whole

__all__ = ["AutoencoderKL", "KLBottleneck", "KLDecoder", "KLEncoder"]

_LOG_TWO_PI = math.log(2 * math.pi)


class KLEncoder(Encoder):
    """The encoder of diffusers' AutoencoderKL: mean and log variance before `quant_conv`.

    Args:
        x: Type of the data: continuous maps, whose sides can be halved at each level.
        latent_channels: Channels of the latent; the output has twice as many.

    Raises:
        ValueError: If x is not a map whose sides can be halved at each level, or channels are not divisible.
    """

    emitted = 2


class KLBottleneck(Coder):
    """The posterior of diffusers' AutoencoderKL, a diagonal Gaussian, under a standard normal prior.

    Args:
        h: Type of the features: an even number of channels, half of them means.

    Raises:
        ValueError: If the features are not maps, their number is odd or differs from the configuration's, or
            `scaling_factor` is not positive.
    """

    pieces = ("quant_conv",)
    _like: Tensor

    def __init__(
        self,
        h: TensorType,
        *,
        latent_channels: Annotated[int | None, helps.LATENT_CHANNELS] = None,
        use_quant_conv: Annotated[bool, helps.QUANT_CONV] = True,
        scaling_factor: Annotated[float | None, helps.SCALING] = None,
        shift_factor: Annotated[float | None, helps.SHIFT] = None,
        folder: Annotated[str | None, helps.FOLDER] = None,
        pretrained: helps.Pretrained = None,
        train: Annotated[bool, helps.TRAIN] = False,
    ) -> None:
        super().__init__(locals())

    def _build(self, h: TensorType) -> None:
        channels, size = self.check_maps("h", h)
        if channels % 2:
            raise ValueError(f"KLBottleneck expects h of as many means as log variances, got {channels} channels")
        self._z = TensorType((self.agree("latent_channels", channels // 2), *size))
        self.latents: dict[str, Event] = {"continuous": self._z}
        self.moments = self.read_moments()
        self.quant_conv = nn.Conv2d(channels, channels, 1) if self.config["use_quant_conv"] else None
        self.register_buffer("_like", torch.empty(0), persistent=False)  # has the dtype and device

    def forward(self, h: Tensor, step: Step | None) -> Latents:
        """Draws z by reparametrization, `b c h w` (without a step, the mean), and computes its KL in nats, `b`."""
        mean, logvar = self._compute_statistics(h)
        kl = 0.5 * (mean.square() + logvar.expm1() - logvar).flatten(1).sum(1)
        z = mean if step is None else mean + (logvar / 2).exp() * step.rng.normal("posterior", mean)
        return Latents({"continuous": z.to(h.dtype)}, kl, {})

    def to_z(self, name: str, latent: Tensor) -> Tensor:
        """Returns `latent` itself.

        Raises:
            ValueError: If `name` is not `continuous`.
        """
        if name not in self.latents:
            raise ValueError(f"KLBottleneck expects the latent 'continuous', got {name!r}")
        return latent

    def sample(self, num: int, rng: Rng) -> Tensor:
        """Draws standard normal z, `num c h w`."""
        return rng.normal("prior", self._like.new_empty((num, *self._z.shape)))

    def posterior(self, name: str, h: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """Returns the z, `b c h w`, that `forward` draws with this rng, and log q(z | h) in nats, `b`."""
        mean, logvar = self._compute_statistics(h)
        noise = rng.normal("posterior", mean)
        z = self.to_z(name, mean + (logvar / 2).exp() * noise)
        return z.to(h.dtype), -0.5 * (noise.square() + logvar + _LOG_TWO_PI).flatten(1).sum(1)

    def posterior_entropy(self, name: str, h: Tensor) -> Tensor:
        """Computes the entropy of q(z | h) in nats, `b`."""
        logvar = self.to_z(name, self._compute_statistics(h)[1])
        return 0.5 * (logvar + 1 + _LOG_TWO_PI).flatten(1).sum(1)

    def log_prior(self, name: str, latent: Tensor) -> Tensor:
        """Computes the log density of z under N(0, I) in nats, `b`."""
        return -0.5 * (widen(self.to_z(name, latent)).square() + _LOG_TWO_PI).flatten(1).sum(1)

    def _compute_statistics(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Computes (mean, logvar), `b c h w`, at least float32, clamped as in diffusers."""
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        posterior = DiagonalGaussianDistribution(widen(h if self.quant_conv is None else self.quant_conv(h)))
        return posterior.mean, posterior.logvar


class KLDecoder(Decoder):
    """The decoder of diffusers' AutoencoderKL, with `post_quant_conv` before it; clamped if x has a range.

    Args:
        z: Type of the latent: as many halvings smaller than x as there are levels after the first.
        x: Type of the output.

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
        latent_channels: Annotated[int | None, helps.LATENT_CHANNELS] = None,
        norm_num_groups: Annotated[int, helps.GROUPS] = 8,
        mid_block_add_attention: Annotated[bool, helps.MIDDLE_ATTENDS] = True,
        use_post_quant_conv: Annotated[bool, helps.POST_QUANT_CONV] = True,
        folder: Annotated[str | None, helps.FOLDER] = None,
        pretrained: helps.Pretrained = None,
        train: Annotated[bool, helps.TRAIN] = False,
    ) -> None:
        super().__init__(locals())

    def _build(self, z: TensorType, x: TensorType) -> None:
        latent = self.agree("latent_channels", self.check_maps("z", z)[0])
        self._set_up_blocks()
        self.post_quant_conv = nn.Conv2d(latent, latent, 1) if self.config["use_post_quant_conv"] else None
        self.decoder = self._make_decoder(z, x, latent)

    def forward(self, z: Tensor) -> Tensor:
        """Decodes `z`, `b c h w`."""
        return self._clamp(self.decoder(z if self.post_quant_conv is None else self.post_quant_conv(z)))


class AutoencoderKL(Whole):
    """diffusers' AutoencoderKL as a whole: an autoencoder of its three parts, whose `kl` weighs little.

    By default its weight is that of latent diffusion (Rombach et al., 2022, appendix G,
    https://arxiv.org/abs/2112.10752). At 1 the latent keeps next to nothing of x.

    Args:
        x: Type of the data: continuous maps, whose sides can be halved at each level.
        latent_channels: Channels of the latent.

    Raises:
        ValueError: If x is not a map whose sides can be halved at each level, or channels are not divisible.
    """

    origins = ("AutoencoderKL",)
    unread = ("sample_size", "force_upcast")
    made_of = (KLEncoder, KLBottleneck, KLDecoder)

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
        norm_num_groups: Annotated[int, helps.GROUPS] = 8,
        mid_block_add_attention: Annotated[bool, helps.MIDDLES_ATTEND] = True,
        use_quant_conv: Annotated[bool, helps.QUANT_CONV] = True,
        use_post_quant_conv: Annotated[bool, helps.POST_QUANT_CONV] = True,
        scaling_factor: Annotated[float | None, helps.SCALING] = None,
        shift_factor: Annotated[float | None, helps.SHIFT] = None,
        folder: Annotated[str | None, helps.FOLDER] = None,
        pretrained: helps.Pretrained = None,
        train: Annotated[bool, helps.TRAIN] = False,
        likelihood: Annotated[Slot[kinds.Likelihood], helps.LIKELIHOOD] = default("mse"),
        regularizers: Annotated[dict[str, Slot[kinds.Regularizer]] | None, helps.REGULARIZERS] = None,
        judges: Annotated[dict[str, Slot[kinds.Judge]] | None, helps.JUDGES] = None,
        weights: Annotated[dict[str, Slot[kinds.Weight] | float] | None, helps.WEIGHTS] = {"kl": 1e-6},  # noqa: B006
    ) -> None:
        super().__init__(locals())
