"""Latent spaces to look at: encoded data, decoded planes, traversals, paths, arithmetic and projections."""

from modkit.latent_space.arithmetic import average_classes, decode_arithmetic, read_classes, select_class
from modkit.latent_space.drawing import Points, draw_points
from modkit.latent_space.paths import interpolate, make_plane
from modkit.latent_space.projection import Projection, measure_in_features, project
from modkit.latent_space.space import Space, find_space
from modkit.latent_space.views import (
    check_plane,
    decode_between,
    decode_path,
    decode_plane,
    encode_split,
    find_classes,
    reconstruct_pairs,
    traverse_dimensions,
)
from modkit.runs.display import check_ending, save_grid

__all__ = [
    "Points", "Projection", "Space", "average_classes", "check_ending", "check_plane", "read_classes",
    "decode_arithmetic", "decode_between", "decode_path", "decode_plane", "draw_points", "encode_split", "find_classes",
    "find_space", "interpolate", "make_plane", "measure_in_features", "project", "reconstruct_pairs", "save_grid",
    "select_class", "traverse_dimensions",
]  # fmt: skip
