"""Latent spaces to look at: encoded data, decoded planes, traversals, paths between samples."""

from modkit.latent_space.drawing import Points, check_ending, draw_points, save_grid
from modkit.latent_space.paths import interpolate, make_plane
from modkit.latent_space.space import Space, find_space
from modkit.latent_space.views import (
    check_plane,
    decode_path,
    decode_plane,
    encode_split,
    find_classes,
    reconstruct_pairs,
    traverse_dimensions,
)

__all__ = [
    "Points", "Space", "check_ending", "check_plane", "decode_path", "decode_plane", "draw_points", "encode_split",
    "find_classes", "find_space", "interpolate", "make_plane", "reconstruct_pairs", "save_grid", "traverse_dimensions",
]  # fmt: skip
