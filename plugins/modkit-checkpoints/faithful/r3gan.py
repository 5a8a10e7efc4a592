r"""Compares R3GAN's networks with ours: `python -m faithful.r3gan --peer PATH`.

Their layers fall back to plain PyTorch on a CPU. Their discriminator has no biases after the blocks: its last layer is
w . phi, so ours is given a bias of zero. Their conditional networks join the condition in other ways than ours (an
embedding that is not scaled beside z, a discriminator without a logit of its own), so those are not compared.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import torch
from packaging.version import parse
from torch import Tensor

from faithful.measure import Figure, compare, draw_normal, format_table, perturb
from faithful.peer import find_commit, read_arguments, stand_in
from modkit import Cond, CondType, TensorType
from modkit.nn.r3gan import R3GANDiscriminator, R3GANGenerator

_OPTIONS = {  # channels, blocks, expansion, groups
    "two blocks, 4 groups": (8, 2, 2, 4),
    "one block, dense": (8, 1, 1, 1),
    "three blocks, wide": (4, 3, 3, 2),
}
_NOISE = 12
_BLOCK = {
    "LinearLayer1.Layer.weight": "conv_1.weight",
    "LinearLayer2.Layer.weight": "conv_2.weight",
    "LinearLayer3.Layer.weight": "conv_3.weight",
    "NonLinearity1.Bias": "conv_1.bias",
    "NonLinearity2.Bias": "conv_2.bias",
}


def main() -> None:
    """Prints every figure, and the table."""
    (peer,) = read_arguments("peer")
    stand_in("pkg_resources", parse_version=parse)  # which setuptools no longer has
    theirs = importlib.import_module("R3GAN.Networks")
    figures = []
    with torch.no_grad():
        for name, (channels, blocks, expansion, groups) in _OPTIONS.items():
            for size in (16, 32):
                x = TensorType((3, size, size))
                num = size.bit_length() - 2  # levels down to 4x4
                widths = [channels * min(2**level, 8) for level in range(num)]
                cards, counts = [groups] * num, [blocks] * num
                options = {"channels": channels, "blocks": blocks, "expansion": expansion, "groups": groups}
                torch.manual_seed(0)
                made = theirs.Generator(_NOISE, widths[::-1], cards, counts, expansion)
                ours = R3GANGenerator(TensorType((_NOISE,)), x, CondType(), **options)
                figures.append(_compare_generator(name, size, made, ours))
                critic = theirs.Discriminator(widths, cards, counts, expansion)
                judge = R3GANDiscriminator(x, CondType(), **options)
                figures.append(_compare_discriminator(name, size, critic, judge))
    print(find_commit(peer), format_table(figures), sep="\n")


def _compare_generator(name: str, size: int, theirs: torch.nn.Module, ours: R3GANGenerator) -> Figure:
    perturb(theirs, 0)
    ours.load_state_dict(_convert(theirs.state_dict(), blocks_first=False))
    z = draw_normal(3, _NOISE)
    return compare("generator", name, (size, size), theirs(z), lambda: ours(z, Cond()), ours)


def _compare_discriminator(name: str, size: int, theirs: torch.nn.Module, ours: R3GANDiscriminator) -> Figure:
    perturb(theirs, 0)
    ours.load_state_dict({"out.bias": torch.zeros(1), **_convert(theirs.state_dict(), blocks_first=True)})
    x = draw_normal(4, 3, size, size)
    return compare("discriminator", name, (size, size), theirs(x), lambda: ours(x, Cond()), ours)


def _convert(state: Mapping[str, Tensor], *, blocks_first: bool) -> dict[str, Tensor]:
    """Renames the tensors of their network; a level of theirs has its blocks before or after its change of size."""
    made: dict[str, Tensor] = {}
    layers = {tuple(map(int, key.split(".")[1:4:2])) for key in state if key.startswith("MainLayers")}
    counts = {level: max(layer for one, layer in layers if one == level) for level, _ in layers}
    for key, value in state.items():
        if key.endswith("Kernel"):  # the filter, which is no weight
            continue
        if not key.startswith("MainLayers"):
            made["conv_in.weight" if blocks_first else "out.weight"] = value
            continue
        _, number, _, place, *rest = key.split(".")
        level, layer, name = int(number), int(place), ".".join(rest)
        change = layer == counts[level] if blocks_first else not layer
        if name in _BLOCK and not change:
            index = layer if blocks_first else layer - 1
            shifted = index + (1 if level else 0)  # ours has the change of size first
            made[f"levels.{level}.{shifted}.{_BLOCK[name]}"] = value
        elif name == "Basis":
            made["basis"] = value
        elif name == "Basis.weight":
            made["basis"] = value[:, 0]
        elif name == "LinearLayer.weight":
            made["out.weight" if blocks_first else "project.weight"] = value
        else:  # LinearLayer.Layer.weight, from one level to the next
            made[f"levels.{level + blocks_first}.0.conv.weight"] = value
    return made


if __name__ == "__main__":
    main()
