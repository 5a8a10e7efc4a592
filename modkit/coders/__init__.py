"""Coders that other kinds of parts make: a generator as decoder, and a critic or an extractor as encoder."""

from modkit.coders.critic_features import CriticFeatures
from modkit.coders.frozen_features import FrozenFeatures
from modkit.coders.generated import Generated

__all__ = ["CriticFeatures", "FrozenFeatures", "Generated"]
