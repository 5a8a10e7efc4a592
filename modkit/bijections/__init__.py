"""Bijections: invertible maps, of which flows are made."""

from modkit.bijections.actnorm import Actnorm
from modkit.bijections.autoregressive import Autoregressive
from modkit.bijections.chain import Chain
from modkit.bijections.coupling import Coupling
from modkit.bijections.inverse import Inverse
from modkit.bijections.linear import Linear
from modkit.bijections.squeeze import Squeeze

__all__ = ["Actnorm", "Autoregressive", "Chain", "Coupling", "Inverse", "Linear", "Squeeze"]
