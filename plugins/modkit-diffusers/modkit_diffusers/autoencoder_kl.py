"""diffusers' AutoencoderKL, the first stage of latent diffusion, whole: an autoencoder of its three parts.

References:
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), section 3.1 and appendix G,
    https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modkit.kinds import (
    Adversarial,
    Discriminator,
    FeatureExtractor,
    Likelihood,
    Regularizer,
    Slot,
    Weight,
    default,
)
from modkit.models.autoencoder import Autoencoder
from modkit.types import TensorType
from modkit_diffusers.coders import Coder, Made
from modkit_diffusers.kl_parts import SOURCE, UNREAD, KLBottleneck, KLDecoder, KLEncoder
from modkit_diffusers.pretrained import check_unread, written_out

__all__ = ["AutoencoderKL"]


class AutoencoderKL(Autoencoder):
    """diffusers' AutoencoderKL, whole: an autoencoder of its three parts.

    Args:
        x: Type of the data: continuous maps, whose sides all halvings divide.
        in_channels: Channels of x; only compared, they are told.
        out_channels: Channels that the likelihood asks for; only compared, they are told.
        block_out_channels: Channels of each level, finest first; the resolution is halved between levels.
        down_block_types: Blocks of the encoder's levels; None: `DownEncoderBlock2D`.
        up_block_types: Blocks of the decoder's levels, coarsest first; None: `UpDecoderBlock2D`.
        layers_per_block: Residual blocks a level of the encoder; one more of the decoder.
        act_fn: Activation of the residual blocks.
        latent_channels: Channels of the latent.
        norm_num_groups: Groups of the normalisations.
        mid_block_add_attention: Whether the middles attend.
        use_quant_conv: Whether a 1x1 convolution stands before the posterior.
        use_post_quant_conv: Whether a 1x1 convolution stands before the decoder.
        scaling_factor: What a prior sees the latent multiplied by; None: `latent` measures it.
        shift_factor: What is taken off the latent first.
        folder: A local folder that diffusers saved: its configuration and weights.
        pretrained: Folder of the weights to start from, beside a configuration that is written out.
        train: Whether weights from a folder go on training.
        likelihood: p(x | z).
        critic: Tells data from reconstructions; none where not given.
        adversarial: Losses of the game with the critic.
        regularizers: Penalties on the critic, by the name of their term.
        critic_start: First step of the stage at which the critic plays.
        features: Whose maps the perceptual loss compares; none where not given.
        weights: Weights of the losses by term; a term not named weighs 1.

    Raises:
        ValueError: If x is no map that its levels halve, or channels are not divisible as the configuration needs it.
    """

    def __init__(
        self,
        x: TensorType,
        *,
        in_channels: int | None = None,
        out_channels: int | None = None,
        block_out_channels: list[int] = [32, 64],  # noqa: B006
        down_block_types: list[str] | None = None,
        up_block_types: list[str] | None = None,
        layers_per_block: int = 1,
        act_fn: str = "silu",
        latent_channels: int = 4,
        norm_num_groups: int = 8,
        mid_block_add_attention: bool = True,
        use_quant_conv: bool = True,
        use_post_quant_conv: bool = True,
        scaling_factor: float | None = None,
        shift_factor: float | None = None,
        folder: str | None = None,
        pretrained: str | None = None,
        train: bool = False,
        likelihood: Slot[Likelihood] = default("mse"),
        critic: Slot[Discriminator] | None = None,
        adversarial: Slot[Adversarial] = default("hinge"),
        regularizers: dict[str, Slot[Regularizer]] | None = None,
        critic_start: int = 0,
        features: Slot[FeatureExtractor] | None = None,
        weights: dict[str, Slot[Weight] | float] | None = None,
    ) -> None:
        check_unread("AutoencoderKL", folder)
        both: dict[str, Any] = {
            "block_out_channels": block_out_channels,
            "layers_per_block": layers_per_block,
            "act_fn": act_fn,
            "latent_channels": latent_channels,
            "norm_num_groups": norm_num_groups,
            "mid_block_add_attention": mid_block_add_attention,
        }
        start: dict[str, Any] = {"pretrained": pretrained, "train": train}

        def encoder(x: TensorType) -> KLEncoder:
            return KLEncoder(x, in_channels=in_channels, down_block_types=down_block_types, **both, **start)

        def bottleneck(h: TensorType) -> KLBottleneck:
            scale: dict[str, Any] = {"scaling_factor": scaling_factor, "shift_factor": shift_factor}
            return KLBottleneck(h, use_quant_conv=use_quant_conv, **scale, **start)

        def decoder(z: TensorType, x: TensorType) -> KLDecoder:
            own: dict[str, Any] = {"out_channels": out_channels, "up_block_types": up_block_types}
            return KLDecoder(z, x, use_post_quant_conv=use_post_quant_conv, **own, **both, **start)

        super().__init__(
            x,
            encoder=Made("KLEncoder", encoder),
            bottleneck=Made("KLBottleneck", bottleneck),
            decoder=Made("KLDecoder", decoder),
            likelihood=likelihood,
            critic=critic,
            adversarial=adversarial,
            regularizers=regularizers,
            critic_start=critic_start,
            features=features,
            weights=weights,
        )
        self.frozen = pretrained is not None and not train

    @staticmethod
    def expanded(params: Mapping[str, Any]) -> dict[str, Any]:
        """The keywords that those of a spec stand for: the configuration in `folder` in its place."""
        return written_out(AutoencoderKL, (SOURCE,), params, unread=UNREAD)

    def load_pretrained(self) -> None:
        """Takes the weights of the folder, where one was given."""
        for part in self.children():
            if isinstance(part, Coder):
                part.load_pretrained()
