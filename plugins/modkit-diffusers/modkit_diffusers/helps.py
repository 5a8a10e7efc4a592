"""The help that `modkit show` prints for keywords that several parts share; others have theirs in the docstring."""

from typing import Annotated, TypeAlias

from modkit.kinds import Initial

# Every part of a network or an autoencoder
FOLDER = "A local folder that diffusers saved, with configuration and weights."
Pretrained: TypeAlias = Annotated[
    str | None, "Folder of the initial weights, if the configuration is given by keywords.", Initial
]
TRAIN = "Whether weights from a folder are trained further."
LEVELS = "Channels of each level, finest first; the resolution is halved between levels."
ACTIVATION = "Activation of the residual blocks."
GROUPS = "Groups of the normalisations."

# Networks
IN_CHANNELS = "Channels of x and the map concatenated with it; only checked against these."
OUT_CHANNELS = "Channels of the output; only checked against its type."
UP_BLOCKS = "Blocks of each level on the way up; by default those of the way down, mirrored."
UPCAST = "Whether attention is computed in float32."
NORM_EPS = "Number that normalisations add to a variance."
DROPOUT = "Probability of dropout in each block."
TIME_SHIFT = "`default` adds the embedding in residual blocks; `scale_shift` scales and shifts by it."
MID_SCALE = "Divisor of the middle's outputs."
PADDING = "Padding when downsampling; 0: at the end only."
CENTER = "Whether inputs in [0, 1] are mapped to [-1, 1]."
FREQ_SHIFT = "Subtracted from the number of frequencies in the embedding of time."
COSINES_FIRST = "Whether cosines come before sines."
CLASS_EMBEDS = "Number of labels' embeddings; by default one per label, and one for no class."

# Autoencoders, in parts and whole
X_CHANNELS = "Channels of x; only checked against x."
DECODED_CHANNELS = "Channels that the likelihood requires; only checked against these."
DOUBLED_LEVELS = "Channels of each level, finest first; the resolution is doubled between levels."
ENCODER_BLOCKS = "Blocks of the encoder's levels; by default `DownEncoderBlock2D`."
ENCODER_LEVEL_BLOCKS = "Blocks of each level; by default `DownEncoderBlock2D`."
DECODER_BLOCKS = "Blocks of the decoder's levels, coarsest first; by default `UpDecoderBlock2D`."
DECODER_LEVEL_BLOCKS = "Blocks of each level, coarsest first; by default `UpDecoderBlock2D`."
LAYERS = "Residual blocks per level of the encoder; the decoder has one more."
ENCODER_LAYERS = "Residual blocks per level."
DECODER_LAYERS = "One less than the number of residual blocks per level."
LATENT_CHANNELS = "Channels of the latent; only checked against it."
MIDDLE_ATTENDS = "Whether the middle attends."
MIDDLES_ATTEND = "Whether the middles attend."
CODES = "Number of codes."
QUANT_CONV = "Whether there is a 1x1 convolution before the posterior."
POST_QUANT_CONV = "Whether there is a 1x1 convolution before the decoder."
SCALING = "Factor of the latent for a prior; by default `latent` measures it."
CONTINUOUS_SCALING = "Factor of the latent `continuous` for a prior; by default `latent` measures it."
SHIFT = "Subtracted from the latent before that."
LIKELIHOOD = "p(x | z)."
REGULARIZERS = "Penalties on the autoencoder, by the names of their terms."
JUDGES = "What judges reconstructions and latents, by the names of their terms."
WEIGHTS = "Weights of the losses by term; 1 by default."
