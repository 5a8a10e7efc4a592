"""The kinds of parts: what each is given when it is built, and what it emits or does.

A kind is a Protocol here. A constructor parameter annotated `Slot[Encoder]` is a slot: it receives a factory, to be
called with types by name (`encoder(x=x)`); `default("conv")` is its default part. Types pass by name, so a part takes
only those that it declares; every other parameter of a part is plain data for the user to set. Nothing here imports
torch at import time.

The Protocols stand by what they make up (`autoencoders`, `adversaries`, `denoisers`, `codes`, `data`, `corruptions`,
`training`, `measuring`), beside `slots` and the `table` of kinds; all are imported from here.

Shape letters: b batch, c channels, h w spatial, d features, n tokens, k classes.
"""

from modkit.kinds.adversaries import Adversarial, Critic, Discriminator, Generator, Regularizer
from modkit.kinds.autoencoders import Bottleneck, Decoder, Encoder, Likelihood
from modkit.kinds.codes import Decoding, Predict, PriorNetwork
from modkit.kinds.corruptions import Corruption
from modkit.kinds.data import Conditioner, Data
from modkit.kinds.denoisers import Denoise, Guidance, LossWeight, Network, Parametrization, Sampler, Schedule, Times
from modkit.kinds.measuring import FeatureExtractor, Metric
from modkit.kinds.slots import Default, Slot, Unfit, default
from modkit.kinds.table import KINDS, Kind
from modkit.kinds.training import Engine, Logger, LRSchedule, Optimizer, Step, Weight

__all__ = [
    "KINDS",
    "Adversarial",
    "Bottleneck",
    "Conditioner",
    "Corruption",
    "Critic",
    "Data",
    "Decoder",
    "Decoding",
    "Default",
    "Denoise",
    "Discriminator",
    "Encoder",
    "Engine",
    "FeatureExtractor",
    "Generator",
    "Guidance",
    "Kind",
    "LRSchedule",
    "Likelihood",
    "Logger",
    "LossWeight",
    "Metric",
    "Network",
    "Optimizer",
    "Parametrization",
    "Predict",
    "PriorNetwork",
    "Regularizer",
    "Sampler",
    "Schedule",
    "Slot",
    "Step",
    "Times",
    "Unfit",
    "Weight",
    "default",
]
