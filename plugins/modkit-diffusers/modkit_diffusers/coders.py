"""What the wrapped autoencoders share: their two pyramids of residual blocks, and how three parts make a whole.

    h = encoder(x), halved between levels        out = decoder(z), doubled between levels

Each part keeps diffusers' own names, so that a state dict is cut into those of the parts and put together again:

    encoder.*                            the encoder
    quant_conv.*, quantize.*             the bottleneck
    post_quant_conv.*, decoder.*         the decoder

Shape letters: b batch, c channels, h w spatial.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from modkit.types import Event, TensorType
from modkit_diffusers.networks import check_channels, check_groups, check_halvings
from modkit_diffusers.pretrained import load

__all__ = ["Coder", "Made", "bounded", "coder_blocks", "decoder_net", "encoder_net", "known_moments", "map_type"]


class Coder(nn.Module):
    """A part of one of diffusers' autoencoders.

    Attributes:
        source: Name of the diffusers class that it is a part of.
        pieces: The first names of its keys.
        config: What it holds of that class's configuration.
    """

    source: str
    pieces: tuple[str, ...]
    config: dict[str, Any]
    frozen: bool = False

    def __init__(self) -> None:
        super().__init__()
        self._pretrained: str | None = None

    def load_pretrained(self) -> None:
        """Takes the weights of the folder, where one was given."""
        if self._pretrained is not None:
            load(type(self).__name__, self, self._pretrained, pieces=self.pieces)

    def start_from(self, pretrained: str | None, train: bool) -> None:
        """Notes the folder of the weights to start from; frozen unless they go on training."""
        self._pretrained = pretrained
        if pretrained is not None and not train:
            self.requires_grad_(False)
            self.frozen = True


class Made:
    """A slot whose part is known.

    Args:
        where: What messages call it.
        make: Called with the types.
    """

    def __init__(self, where: str, make: Callable[..., Any]) -> None:
        self.where, self._make = where, make

    def __call__(self, **types: Any) -> Any:
        """Builds the part."""
        return self._make(**types)

    def accepts(self, event: Event) -> str | None:
        """Of a Model: this holds none."""
        return None

    def each(self, num: int) -> Sequence[Made]:
        """Itself, `num` times."""
        return [self] * num

    def fed(self, source: str) -> Made:
        """Itself."""
        return self


def map_type(owner: str, name: str, type: TensorType) -> tuple[int, tuple[int, int]]:
    """Channels and size of continuous maps.

    Raises:
        ValueError: If the type is of anything else.
    """
    if type.classes is not None or len(type.shape) != 3:
        raise ValueError(f"{owner} expects {name} as continuous maps (c, h, w), got {type}")
    channels, height, width = type.shape
    return channels, (height, width)


def coder_blocks(owner: str, name: str, plain: str, channels: Sequence[int], kinds: Sequence[str] | None) -> list[str]:
    """The blocks of each level, plain ones where none are given.

    Raises:
        ValueError: If there are not as many as levels.
    """
    blocks = [plain] * len(channels) if kinds is None else list(kinds)
    if len(blocks) != len(channels):
        raise ValueError(f"{owner} expects {name} of each of {len(channels)} levels, got {blocks}")
    return blocks


def encoder_net(owner: str, x: TensorType, latent: int, config: Mapping[str, Any], *, double: bool) -> nn.Module:
    """The Encoder of diffusers for x.

    Args:
        owner: Name of the class that asks, for messages.
        x: Type of the data.
        latent: Channels of the latent.
        config: The configuration.
        double: Whether it emits mean and log variance.

    Raises:
        ValueError: If x is no map that its levels halve, or channels are not divisible.
    """
    from diffusers.models.autoencoders.vae import Encoder

    told, size = map_type(owner, "x", x)
    _check(owner, size, config, latent)
    net: nn.Module = Encoder(
        in_channels=check_channels(owner, "in_channels", told, config["in_channels"]),
        out_channels=latent,
        down_block_types=tuple(config["down_block_types"]),
        double_z=double,
        **_both(config),
    )
    return net


def decoder_net(owner: str, z: TensorType, x: TensorType, latent: int, config: Mapping[str, Any]) -> nn.Module:
    """The Decoder of diffusers to x.

    Args:
        owner: Name of the class that asks, for messages.
        z: Type of what is decoded.
        x: Type to emit.
        latent: Channels that it is fed.
        config: The configuration.

    Raises:
        ValueError: If z is not as many halvings below x as there are levels after the first, or channels are not
            divisible.
    """
    from diffusers.models.autoencoders.vae import Decoder

    told, size = map_type(owner, "x", x)
    _, coarse = map_type(owner, "z", z)
    _check(owner, size, config, latent)
    factor = 2 ** (len(config["block_out_channels"]) - 1)
    if coarse != tuple(side // factor for side in size):
        expected = f"z {factor} times smaller than x of size {size}, for {len(config['block_out_channels'])} levels"
        raise ValueError(f"{owner} expects {expected}, got {coarse}")
    net: nn.Module = Decoder(
        in_channels=latent,
        out_channels=check_channels(owner, "out_channels", told, config["out_channels"]),
        up_block_types=tuple(config["up_block_types"]),
        norm_type=config.get("norm_type", "group"),
        **_both(config),
    )
    return net


def known_moments(owner: str, scaling: float | None, shift: float | None = None) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of `continuous`, where a configuration says how it is scaled.

    A prior sees `scaling_factor (z - shift_factor)`.

    Raises:
        ValueError: If `scaling` is not positive, or missing beside a shift.
    """
    if scaling is None and shift is None:
        return {}
    if scaling is None or scaling <= 0:
        raise ValueError(f"{owner} expects a positive scaling_factor, got {scaling} (shift_factor {shift})")
    return {"continuous": (shift or 0.0, 1 / scaling)}


def bounded(out: Tensor, x: TensorType) -> Tensor:
    """What a decoder gives, within the range of what it must emit, where that has one."""
    return out if x.range is None else out.clamp(*x.range)


def _both(config: Mapping[str, Any]) -> dict[str, Any]:
    """What encoder and decoder take alike."""
    names = ("layers_per_block", "norm_num_groups", "act_fn", "mid_block_add_attention")
    return {"block_out_channels": tuple(config["block_out_channels"]), **{name: config[name] for name in names}}


def _check(owner: str, size: tuple[int, int], config: Mapping[str, Any], latent: int) -> None:
    check_groups(owner, config["block_out_channels"], config["norm_num_groups"])
    check_halvings(owner, size, len(config["block_out_channels"]) - 1)
    if latent < 1 or config["layers_per_block"] < 1:
        got = f"{latent} and {config['layers_per_block']}"
        raise ValueError(f"{owner} expects latent_channels and layers_per_block of at least 1, got {got}")
