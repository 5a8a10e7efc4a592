r"""SongUNet: DDPM++ and NCSN++ as in EDM, that is modkit's NCSN++ pyramid with EDM's embedding.

    e = W_1 SiLU(W_0 (g(time) + A a + E(cond)))       g: sines and cosines, at fixed or random frequencies

    DDPM++   positional features,  resampling by averaging pairs,          no path beside the way down
    NCSN++   Fourier features,     resampling by the filter [1, 3, 3, 1],  a residual path beside the way down

Shape letters: b batch, c channels, a augmentation labels, d width, h w spatial (one, two or three sizes).

References:
    Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), appendix H,
    https://arxiv.org/abs/2011.13456
    Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), appendix F,
    https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor

from modkit.nn.blocks import check_levels, get_map_size
from modkit.nn.embeddings import MapJoin, sinusoidal_embedding
from modkit.nn.ncsnpp_body import Body
from modkit.types import Cond, CondType, PositiveInt, TensorType, checked
from modkit_checkpoints.edm_embedding import Fourier, Mapping

__all__ = ["SongUNet"]


@checked
class SongUNet(Body):
    """A conditional map between signals, images or volumes of one size: DDPM++ or NCSN++ as in EDM.

    Args:
        x: Type of the input: continuous maps.
        out: Type of the output, of x's size; any number of channels; if it has a range, a tanh maps to it.
        cond: The conditions: time, vector, labels and noise are embedded together, a map is concatenated with x;
            tokens are refused.
        channels: Channels of each level, finest first; the resolution is halved between levels.
        stem: Channels of the first map; by default those of the first level.
        embedding: Width of the embedding; by default four times the stem's channels.
        features: Number of features of the time, even; by default the stem's channels.
        frequencies: Whether the time's frequencies go from 1 to 1e-4 (`positional`) or are drawn once (`fourier`).
        blocks: Residual blocks per level on the way down; there is one more on the way up.
        attention: Resolutions (the largest side of a level's maps) at which to attend; the middle always attends.
        fir: Whether to resample with the filter [1, 3, 3, 1]; otherwise by averaging pairs and repetition.
        encoder: The path beside the way down: none (`standard`), the resampled input (`skip`), or convolutions
            (`residual`).
        decoder: Whether the output is computed at the finest level (`standard`) or summed over levels (`skip`).
        augment: Number of augmentation labels that `forward` accepts.
        dropout: Probability of dropout in each residual block.

    Raises:
        ValueError: If `x` is a vector or codes, `out` has another size, `cond` has a context, there is no level or
            block, a resolution belongs to no level, a width is out of range, or a mode is unknown.
    """

    embedding: Mapping

    def __init__(
        self,
        x: TensorType,
        out: TensorType,
        cond: CondType,
        *,
        channels: list[PositiveInt] = [64, 128],  # noqa: B006
        stem: PositiveInt | None = None,
        embedding: int | None = None,
        features: int | None = None,
        frequencies: Literal["positional", "fourier"] = "positional",
        blocks: PositiveInt = 2,
        attention: list[int] = [],  # noqa: B006
        fir: bool = False,
        encoder: Literal["standard", "skip", "residual"] = "standard",
        decoder: Literal["standard", "skip"] = "standard",
        augment: int = 0,
        dropout: float = 0.0,
    ) -> None:
        check_levels("SongUNet", channels)
        size = get_map_size("SongUNet", x)
        _check(out, size, cond, {"frequencies": frequencies, "encoder": encoder, "decoder": decoder})
        stem = channels[0] if stem is None else stem
        features = stem if features is None else features
        super().__init__(
            size,
            out,
            embedding=Mapping(
                cond,
                features,
                4 * stem if embedding is None else embedding,
                waves=Fourier(features) if frequencies == "fourier" else partial(sinusoidal_embedding, width=features),
                late=False,
                augment=augment,
            ),
            mapping=None,
            join=MapJoin(x, cond.concat, stem),
            channels=channels,
            stem=stem,
            blocks=blocks,
            attention=attention,
            fir=fir,
            progressive_input="none" if encoder == "standard" else encoder,
            progressive="none" if decoder == "standard" else decoder,
            style=None,
            dropout=dropout,
            strided=False,
        )

    def forward(self, x: Tensor, cond: Cond, augment: Tensor | None = None) -> Tensor:
        """Evaluates the network at `x`, `b c h w` of any size, given augmentation labels, `b a`, if any.

        Raises:
            ValueError: If a condition of the type `cond` is missing.
        """
        return self.evaluate(x, cond, self.embedding(cond, x, augment) if self.embedding.embeds else None)


_MODES = {
    "frequencies": ("positional", "fourier"),
    "encoder": ("standard", "skip", "residual"),
    "decoder": ("standard", "skip"),
}


def _check(out: TensorType, size: tuple[int, ...], cond: CondType, modes: dict[str, str]) -> None:
    if get_map_size("SongUNet", out) != size:
        raise ValueError(f"SongUNet expects out of x's size {size}, got {out.shape[1:]}")
    if cond.context is not None:
        raise ValueError(f"SongUNet expects cond without context, got {cond}")
    for name, mode in modes.items():
        if mode not in _MODES[name]:
            raise ValueError(f"SongUNet expects {name} to be one of {', '.join(_MODES[name])}, got {mode!r}")
