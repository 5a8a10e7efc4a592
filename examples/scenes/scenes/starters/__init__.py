"""The example part from which `modkit new-plugin NAME --kind scenes/layout` creates a plug-in."""

STARTERS = {"layout": ("spread", "Spread", "Things around the middle, as far from it as in the data")}
