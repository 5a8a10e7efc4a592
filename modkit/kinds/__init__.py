"""The kinds of parts: the types given to a part when it is built, and the members that it must have.

Each kind is a Protocol, so parts inherit nothing. A constructor parameter annotated `Slot[Encoder]` is a slot: it
receives a factory, which is called with types by name (`encoder(x=x)`); `default("conv")` declares its default part.
Types are passed by name, so a part takes only the types that it declares. Every other parameter of a part is plain data
for the user to set. Importing these modules does not import torch.

A Protocol holds the members that every part of the kind must have. Optional members are the fields of a record named
after the Protocol (`BottleneckExtras` for `Bottleneck`), with the default of each. Callers read them with
`read_extras(part, BottleneckExtras)`.

The Protocols are grouped by what they form (`autoencoders`, `adversaries`, `judges`, `bijections`, `denoisers`,
`codes`, `data`, `corruptions`, `training`, `measuring`), beside `slots`, `extras`, `review` and the `table` of kinds;
all of them are imported from here.

Shape letters: b batch, c channels, h w spatial, d features, n tokens, k classes.
"""

from modkit.kinds.adversaries import (
    Adversarial,
    AdversarialExtras,
    Augmentation,
    AugmentationExtras,
    Critic,
    Discriminator,
    DiscriminatorExtras,
    Generator,
    GeneratorExtras,
    Regularizer,
    RegularizerExtras,
    Round,
)
from modkit.kinds.autoencoders import (
    Bottleneck,
    BottleneckExtras,
    Decoder,
    DecoderExtras,
    Draw,
    Encoder,
    EncoderExtras,
    Evidence,
    Likelihood,
    LikelihoodExtras,
    Objective,
    ObjectiveExtras,
)
from modkit.kinds.bijections import Bijection, BijectionExtras
from modkit.kinds.codes import Decoding, Predict, PriorNetwork, PriorNetworkExtras
from modkit.kinds.corruptions import Corruption
from modkit.kinds.data import Conditioner, ConditionerExtras, Data, DataExtras
from modkit.kinds.denoisers import (
    Alignment,
    Coefficients,
    Coupling,
    CouplingExtras,
    Denoise,
    Denoiser,
    Grid,
    GridExtras,
    Guidance,
    GuidanceExtras,
    LossWeight,
    LossWeightExtras,
    Network,
    NetworkExtras,
    Parametrization,
    ParametrizationExtras,
    Sampler,
    SamplerExtras,
    Schedule,
    ScheduleExtras,
    Sides,
    Times,
    TimesExtras,
)
from modkit.kinds.extras import BatchExtras, GameExtras, ImpliedExtras, PretrainedExtras, PromiseExtras, read_extras
from modkit.kinds.judges import Judge, JudgeExtras
from modkit.kinds.measuring import FeatureExtractor, FeatureExtractorExtras, Metric, MetricExtras
from modkit.kinds.review import Fact, Finding, Note
from modkit.kinds.slots import Default, Implies, Initial, Own, Sampling, Slot, Unfit, Unless, default
from modkit.kinds.table import KINDS, Kind
from modkit.kinds.training import (
    Engine,
    EngineExtras,
    Exchange,
    Logger,
    LoggerExtras,
    LRSchedule,
    Optimizer,
    Step,
    Weight,
)

__all__ = [
    "KINDS",
    "Adversarial",
    "AdversarialExtras",
    "Alignment",
    "Augmentation",
    "AugmentationExtras",
    "BatchExtras",
    "Bijection",
    "BijectionExtras",
    "Bottleneck",
    "BottleneckExtras",
    "Conditioner",
    "ConditionerExtras",
    "Corruption",
    "Coupling",
    "CouplingExtras",
    "Critic",
    "Data",
    "DataExtras",
    "Decoder",
    "DecoderExtras",
    "Decoding",
    "Default",
    "Coefficients",
    "Denoise",
    "Denoiser",
    "Discriminator",
    "DiscriminatorExtras",
    "Draw",
    "Encoder",
    "EncoderExtras",
    "Engine",
    "EngineExtras",
    "Evidence",
    "Exchange",
    "Fact",
    "FeatureExtractor",
    "FeatureExtractorExtras",
    "Finding",
    "Generator",
    "GeneratorExtras",
    "Grid",
    "GridExtras",
    "Guidance",
    "GuidanceExtras",
    "Implies",
    "Initial",
    "GameExtras",
    "ImpliedExtras",
    "Kind",
    "Judge",
    "JudgeExtras",
    "LRSchedule",
    "Likelihood",
    "LikelihoodExtras",
    "Logger",
    "LoggerExtras",
    "LossWeight",
    "LossWeightExtras",
    "Metric",
    "MetricExtras",
    "Network",
    "NetworkExtras",
    "Note",
    "Objective",
    "ObjectiveExtras",
    "Optimizer",
    "Own",
    "Parametrization",
    "ParametrizationExtras",
    "Predict",
    "PretrainedExtras",
    "PriorNetwork",
    "PriorNetworkExtras",
    "PromiseExtras",
    "Regularizer",
    "RegularizerExtras",
    "Round",
    "Sampler",
    "SamplerExtras",
    "Sampling",
    "Schedule",
    "ScheduleExtras",
    "Sides",
    "Slot",
    "Step",
    "Times",
    "TimesExtras",
    "Unfit",
    "Unless",
    "Weight",
    "default",
    "read_extras",
]
