"""The encoders and decoders that the wrapped autoencoders share, and the composition of a whole from three parts.

    h = encoder(x), halved between levels        out = decoder(z), doubled between levels

The parts keep diffusers' own names, so that its state dict divides into theirs:

    encoder.*                            the encoder
    quant_conv.*, quantize.*             the bottleneck
    post_quant_conv.*, decoder.*         the decoder

Shape letters: b batch, c channels, h w spatial.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from torch import Tensor, nn

from modkit.conditioners import NoConditioner
from modkit.losses.objectives import ELBO
from modkit.models.autoencoder import Autoencoder
from modkit.types import Event, TensorType
from modkit_diffusers import helps
from modkit_diffusers.configured import Configured, check_folder, expand, list_blocks, list_keywords, make

__all__ = ["PIECES", "Coder", "Decoder", "Encoder", "Whole"]

PIECES = ("encoder", "bottleneck", "decoder")
"""The parts of an autoencoder, by their slots."""
_MODULE = "diffusers.models.autoencoders.vae"
_BOTH = ("block_out_channels", "layers_per_block", "norm_num_groups", "act_fn", "mid_block_add_attention")


class Coder(Configured):
    """A part of one of diffusers' autoencoders."""

    def read_moments(self) -> dict[str, tuple[float, float]]:
        """Returns the mean and standard deviation of `continuous` that the configuration's scaling implies, if any.

        A prior sees `scaling_factor (z - shift_factor)`.

        Raises:
            ValueError: If `scaling_factor` is not positive, or missing although there is a shift.
        """
        scaling, shift = self.config["scaling_factor"], self.config.get("shift_factor")
        if scaling is None and shift is None:
            return {}
        if scaling is None or scaling <= 0:
            raise ValueError(f"{self.owner} expects a positive scaling_factor, got {scaling} (shift_factor {shift})")
        return {"continuous": (shift or 0.0, 1 / scaling)}

    def _check_pyramid(self, size: tuple[int, int], latent: int) -> int:
        """Checks that the size can be halved and the channels divided; returns the factor of the coarsest level."""
        self.check_groups()
        self.check_halvings(size)
        layers = self.config["layers_per_block"]
        if latent < 1 or layers < 1:
            expected = "latent_channels and layers_per_block of at least 1"
            raise ValueError(f"{self.owner} expects {expected}, got {latent} and {layers}")
        return 2 ** (len(self.config["block_out_channels"]) - 1)

    def _make(self, name: str, keys: tuple[str, ...], **more: Any) -> Any:
        """Makes one of diffusers' pyramids with the given keys of the configuration, besides the shared ones."""
        return make(name, {**{key: self.config[key] for key in (*_BOTH, *keys)}, **more}, module=_MODULE)


class Encoder(Coder):
    """One of diffusers' encoders.

    Attributes:
        emitted: Channels that it outputs per channel of the latent.
    """

    pieces = ("encoder",)
    emitted: ClassVar[int] = 1

    def __init__(
        self,
        x: TensorType,
        *,
        in_channels: Annotated[int | None, helps.X_CHANNELS] = None,
        block_out_channels: Annotated[list[int], helps.LEVELS] = [32, 64],  # noqa: B006
        down_block_types: Annotated[list[str] | None, helps.ENCODER_LEVEL_BLOCKS] = None,
        layers_per_block: Annotated[int, helps.ENCODER_LAYERS] = 1,
        act_fn: Annotated[str, helps.ACTIVATION] = "silu",
        latent_channels: int = 4,
        norm_num_groups: Annotated[int, helps.GROUPS] = 8,
        mid_block_add_attention: Annotated[bool, helps.MIDDLE_ATTENDS] = True,
        folder: Annotated[str | None, helps.FOLDER] = None,
        pretrained: helps.Pretrained = None,
        train: Annotated[bool, helps.TRAIN] = False,
    ) -> None:
        super().__init__(locals())

    def _build(self, x: TensorType) -> None:
        latent = self.config["latent_channels"]
        self.set_blocks("down_block_types", ["DownEncoderBlock2D"] * len(self.config["block_out_channels"]))
        channels, size = self.check_maps("x", x)
        factor = self._check_pyramid(size, latent)
        self.agree("in_channels", channels)
        shape = {"out_channels": latent, "double_z": self.emitted == 2}
        self.encoder = self._make("Encoder", ("in_channels", "down_block_types"), **shape)
        self.config["sample_size"] = size[0]
        self.h: Event = TensorType((self.emitted * latent, *(side // factor for side in size)))

    @property
    def units(self) -> list[nn.Module]:
        """The blocks of diffusers' encoder."""
        return list_blocks(self.encoder)

    def forward(self, x: Tensor) -> Tensor:
        """Encodes `x`, `b c h w`, as the input of `quant_conv`."""
        return self.encoder(x)


class Decoder(Coder):
    """One of diffusers' decoders; its output is clamped if x has a range."""

    pieces = ("post_quant_conv", "decoder")
    last_layer: str | None = "decoder.conv_out.weight"

    decoder: nn.Module

    @property
    def units(self) -> list[nn.Module]:
        """The blocks of diffusers' decoder."""
        return list_blocks(self.decoder)

    def _make_decoder(self, z: TensorType, x: TensorType, latent: int, **more: Any) -> Any:
        """Makes diffusers' Decoder from z to x.

        Args:
            z: Type of the latent.
            x: Type of the output.
            latent: Channels of the decoder's input.
            **more: Further arguments.

        Raises:
            ValueError: If z is not as many halvings smaller than x as there are levels after the first, or channels are
                not divisible.
        """
        self._x = x
        channels, size = self.check_maps("x", x)
        _, coarse = self.check_maps("z", z)
        factor = self._check_pyramid(size, latent)
        if coarse != tuple(side // factor for side in size):
            levels = len(self.config["block_out_channels"])
            expected = f"z {factor} times smaller than x of size {size}, for {levels} levels"
            raise ValueError(f"{self.owner} expects {expected}, got {coarse}")
        self.agree("out_channels", channels)
        return self._make("Decoder", ("out_channels", "up_block_types"), in_channels=latent, **more)

    def _set_up_blocks(self) -> None:
        self.set_blocks("up_block_types", ["UpDecoderBlock2D"] * len(self.config["block_out_channels"]))

    def _clamp(self, out: Tensor) -> Tensor:
        """Clamps the output to the range of x, if it has one."""
        return out if self._x.range is None else out.clamp(*self._x.range)


class Whole(Autoencoder):
    """One of diffusers' autoencoders as a whole: an autoencoder of its three parts.

    Args:
        given: The arguments of the constructor, by name.

    Attributes:
        origins: Its class in diffusers.
        unread: Keys of its configuration that only pipelines read.
        made_of: The classes of its three parts.
    """

    origins: ClassVar[tuple[str, ...]]
    unread: ClassVar[tuple[str, ...]]
    made_of: ClassVar[tuple[type[Coder], ...]]
    expand_params = classmethod(expand)

    def __init_subclass__(cls) -> None:
        """Lists for each part the keys of the configuration that the others read."""
        every = {key for part in cls.made_of for key in list_keywords(part)}
        for part in cls.made_of:
            part.origins, part.unread = cls.origins, (*cls.unread, *every)

    def __init__(self, given: Mapping[str, Any]) -> None:
        check_folder(type(self).__name__, given["folder"])
        start = {key: given[key] for key in ("pretrained", "train")}
        parts: dict[str, Any] = {
            slot: _Known(part, {key: given[key] for key in list_keywords(part) if key in given} | start)
            for slot, part in zip(PIECES, self.made_of)
        }
        slots: dict[str, Any] = {"objective": lambda **types: ELBO(), "conditioner": lambda **types: NoConditioner()}
        slots |= {key: given[key] for key in list_keywords(Autoencoder) if key in given and key not in parts}
        super().__init__(given["x"], **parts, **slots)
        self.frozen = start["pretrained"] is not None and not start["train"]

    def load_pretrained(self) -> None:
        """Loads the weights of the folder, if one was given."""
        for slot in PIECES:
            getattr(self, slot).load_pretrained()


class _Known:
    """A slot with a fixed part."""

    def __init__(self, part: type[Coder], params: Mapping[str, Any]) -> None:
        self.where, self._part, self._params = part.__name__, part, params

    def __call__(self, **types: Any) -> Coder:
        """Builds the part, which takes no conditions."""
        types.pop("cond", None)
        return self._part(**types, **self._params)

    def name_source(self, source: str) -> _Known:
        """Itself."""
        return self
