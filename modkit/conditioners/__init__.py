"""Conditioners: what a data set's fields say, as conditions.

Each is built from the types of the fields, names those that it reads, and knows how to draw them where none are given:
classes by their frequencies, anything else from a few examples of the training data that it keeps.
"""

from modkit.conditioners.encoded import Encoded
from modkit.conditioners.label import Label
from modkit.conditioners.maps import Map
from modkit.conditioners.none import NoConditioner
from modkit.conditioners.several import Several
from modkit.conditioners.tokens import Tokens

__all__ = ["Encoded", "Label", "Map", "NoConditioner", "Several", "Tokens"]
