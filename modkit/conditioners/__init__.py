"""Conditioners: they turn a data set's fields into conditions.

Each is built from the types of the fields and names those that it reads. When fields are not given, it draws them:
classes by their frequencies, other fields from a few stored examples of the training data.
"""

from modkit.conditioners.drawing import Frequencies
from modkit.conditioners.encoded import Encoded
from modkit.conditioners.fields import find_field
from modkit.conditioners.label import Label
from modkit.conditioners.maps import Map
from modkit.conditioners.none import NoConditioner
from modkit.conditioners.several import Several
from modkit.conditioners.tokens import Tokens
from modkit.conditioners.vector import Vector

__all__ = ["Encoded", "Frequencies", "Label", "Map", "NoConditioner", "Several", "Tokens", "Vector", "find_field"]
