"""Example parts, one for each kind, from which `modkit new-plugin` creates a plug-in.

`STARTERS` lists them. Each `KIND.py` is copied as it is. `test_values.py` checks the parts against values that are
known in closed form, and the tests of one part are copied with it; `examples.yaml` has the specs that use the parts.
All files use public names only, as the author of a plug-in would. A plug-in that brings a kind may have such a package
for it (`Kind.starters`).
"""

STARTERS: dict[str, tuple[str, str, str]] = {
    "model": ("gaussian", "Gaussian", "A Gaussian for each value, by gradient descent"),
    "encoder": ("patches", "PatchEncoder", "A linear map of each patch (Dosovitskiy et al., 2021)"),
    "bottleneck": ("fixed-width", "FixedWidth", "Noise with a fixed standard deviation (Ghosh et al., 2020)"),
    "decoder": ("patches", "PatchDecoder", "One patch for each position (Peebles & Xie, 2023)"),
    "likelihood": (
        "fixed-gaussian",
        "FixedGaussian",
        "Gaussian with a fixed standard deviation (Kingma & Welling, 2014)",
    ),
    "objective": ("target", "Target", "The KL held to a number of nats (Alemi et al., 2018)"),
    "judge": ("energy", "Energy", "Energy distance from the prior (Székely & Rizzo, 2013)"),
    "bijection": ("sinh-arcsinh", "SinhArcsinh", "Skew and tails of each value (Jones & Pewsey, 2009)"),
    "generator": ("waves", "Waves", "Sums of plane waves (Tancik et al., 2020)"),
    "discriminator": ("prototypes", "Prototypes", "Real if near a prototype (Snell et al., 2017)"),
    "network": ("gated", "Gated", "One hidden layer, gated by conditions (Perez et al., 2018)"),
    "prior-network": ("bag", "Bag", "The mean of earlier codes (Mikolov et al., 2013)"),
    "decoding": ("min-p", "MinP", "Draws codes that are likely enough (Nguyen et al., 2024)"),
    "schedule": ("rotation", "Rotation", "From data to noise at constant speed (Lu & Song, 2024)"),
    "times": ("logit-normal", "LogitNormal", "Mostly intermediate times (Esser et al., 2024)"),
    "coupling": ("nearest", "Nearest", "The nearest of a few draws (Li et al., 2025)"),
    "alignment": ("supervised", "Supervised", "A linear layer predicts x_0 (Lee et al., 2015)"),
    "parametrization": ("flow", "Flow", "Predicts eps - x_0 (Liu et al., 2023)"),
    "loss-weight": ("p2", "P2", "Less weight at low noise (Choi et al., 2022)"),
    "grid": ("power", "Power", "More steps where there are data (Song et al., 2021)"),
    "sampler": ("euler", "Euler", "Euler's method on the probability flow (Karras et al., 2022)"),
    "guidance": ("interval", "Interval", "Classifier-free, at some times only (Kynkäänniemi et al., 2024)"),
    "conditioner": ("one-hot", "OneHot", "One-hot class labels (Mirza & Osindero, 2014)"),
    "adversarial": ("least-squares", "LeastSquares", "Least squares (Mao et al., 2017)"),
    "augmentation": ("instance-noise", "InstanceNoise", "Noise on what is judged (Sønderby et al., 2017)"),
    "regularizer": ("lipschitz", "Lipschitz", "Penalty on a steep critic (Petzka et al., 2018)"),
    "weight": ("cyclic", "Cyclic", "Rises periodically (Fu et al., 2019)"),
    "data": ("checkerboard", "Checkerboard", "Points on every second square (Durkan et al., 2019)"),
    "corruption": ("lost-pixels", "LostPixels", "Hides random positions (Bora et al., 2018)"),
    "features": ("spectrum", "Spectrum", "Power at each frequency (Durall et al., 2020)"),
    "metric": ("mean-gap", "MeanGap", "Distance between the means (Gretton et al., 2012)"),
    "optimizer": ("lion", "Lion", "Signs of averaged gradients (Chen et al., 2023)"),
    "lr-schedule": ("inverse-sqrt", "inverse_sqrt", "Rises, then falls with the root (Vaswani et al., 2017)"),
    "logger": ("table", "Table", "Losses as comma-separated values"),
    "engine": ("careful", "Careful", "Skips steps that are not finite (Micikevicius et al., 2018)"),
}
"""The example part of each kind: its name in a spec, its class or function, and a line for `modkit list`."""
