"""The catalogue of modkit's own parts.

They are registered through the same hook as those of any plug-in, but their names have no prefix.
"""

from __future__ import annotations

from modkit.part import Part, hookimpl

__all__ = ["modkit_parts"]


@hookimpl
def modkit_parts() -> list[Part]:
    """Returns every part that comes with modkit."""
    return [
        # Assemblies
        Part("model", "autoencoder", "modkit.models.autoencoder:Autoencoder", "AE, VAE, VQ-VAE; VQGAN's first stage"),
        Part("model", "gan", "modkit.models.gan:GAN", "Generator against discriminators (Goodfellow et al., 2014)"),
        Part("model", "diffusion", "modkit.models.diffusion:Diffusion", "Denoising diffusion (Ho et al., 2020)"),
        Part("model", "latent", "modkit.models.latent:Latent", "Any model of a latent (LDM: Rombach et al., 2022)"),
        Part(
            "model",
            "autoregressive",
            "modkit.models.autoregressive:Autoregressive",
            "Codes in raster order (van den Oord et al., 2017)",
        ),
        Part("model", "masked", "modkit.models.masked:Masked", "Codes from masks, MaskGIT's (Chang et al., 2022)"),
        Part(
            "model",
            "cascade",
            "modkit.models.cascade:Cascade",
            "A model a level, each given the one above (Razavi et al., 2019)",
        ),
        Part(
            "model",
            "denoising-gan",
            "modkit.models.denoising_gan:DenoisingGAN",
            "Denoising diffusion GAN (Xiao et al., 2022)",
        ),
        # Autoencoders
        Part("encoder", "conv", "modkit.nn.conv:ConvEncoder", "Residual convolutions, halving"),
        Part("encoder", "mlp", "modkit.nn.mlp:MLPEncoder", "Fully connected"),
        Part("decoder", "conv", "modkit.nn.conv:ConvDecoder", "Residual convolutions, doubling"),
        Part("decoder", "mlp", "modkit.nn.mlp:MLPDecoder", "Fully connected"),
        Part("bottleneck", "identity", "modkit.bottlenecks.identity:Identity", "The features themselves"),
        Part("bottleneck", "gaussian", "modkit.bottlenecks.gaussian:Gaussian", "A VAE's (Kingma & Welling, 2014)"),
        Part("bottleneck", "vq", "modkit.bottlenecks.vq:VectorQuantizer", "Nearest code (van den Oord et al., 2017)"),
        Part(
            "bottleneck",
            "residual-vq",
            "modkit.bottlenecks.residual_vq:ResidualQuantizer",
            "Sums of codes, coarse to fine (Lee et al., 2022)",
        ),
        Part(
            "bottleneck",
            "fsq",
            "modkit.bottlenecks.fsq:FiniteScalarQuantizer",
            "Rounded channels, no codebook (Mentzer et al., 2023)",
        ),
        Part("bottleneck", "lfq", "modkit.bottlenecks.lfq:LookupFreeQuantizer", "Signs as bits (Yu et al., 2023)"),
        Part("bottleneck", "gumbel", "modkit.bottlenecks.gumbel:GumbelQuantizer", "Drawn codes (Jang et al., 2017)"),
        Part(
            "bottleneck",
            "top-down",
            "modkit.bottlenecks.top_down:TopDown",
            "A bottleneck a level (VQ-VAE-2: Razavi et al., 2019)",
        ),
        Part("likelihood", "mse", "modkit.losses.likelihoods:MSE", "Gaussian of unit scale, constant left out"),
        Part("likelihood", "l1", "modkit.losses.likelihoods:L1", "Laplace of unit scale, constant left out"),
        Part("likelihood", "gaussian", "modkit.losses.likelihoods:Gaussian", "Gaussian of learned scale"),
        Part("likelihood", "bernoulli", "modkit.losses.likelihoods:Bernoulli", "Bernoulli of each value"),
        # Adversarial games
        Part("generator", "mlp", "modkit.nn.mlp:MLPGenerator", "Fully connected"),
        Part("generator", "dcgan", "modkit.nn.dcgan:DCGANGenerator", "DCGAN's (Radford et al., 2016)"),
        Part("discriminator", "mlp", "modkit.nn.mlp:MLPDiscriminator", "Fully connected"),
        Part("discriminator", "dcgan", "modkit.nn.dcgan:DCGANDiscriminator", "DCGAN's (Radford et al., 2016)"),
        Part("discriminator", "patch", "modkit.nn.patch:PatchDiscriminator", "PatchGAN's (Isola et al., 2017)"),
        Part(
            "discriminator",
            "ncsnpp",
            "modkit.nn.ncsnpp_discriminator:NCSNppDiscriminator",
            "DDGAN's (Xiao et al., 2022)",
        ),
        Part(
            "adversarial",
            "non-saturating",
            "modkit.losses.adversarial:NonSaturating",
            "Logistic losses (Goodfellow et al., 2014)",
        ),
        Part("adversarial", "hinge", "modkit.losses.adversarial:Hinge", "Hinge losses (Lim & Ye, 2017)"),
        Part("adversarial", "kl", "modkit.losses.adversarial:KL", "D2GAN's first game (Nguyen et al., 2017)"),
        Part(
            "adversarial",
            "reverse-kl",
            "modkit.losses.adversarial:ReverseKL",
            "D2GAN's second game (Nguyen et al., 2017)",
        ),
        Part("regularizer", "r1", "modkit.losses.regularizers:R1", "Penalty on reals (Mescheder et al., 2018)"),
        # Diffusion
        Part("network", "unet", "modkit.nn.unet:UNet", "U-Net with attention (Ho et al., 2020)"),
        Part("network", "ncsnpp", "modkit.nn.ncsnpp:NCSNpp", "NCSN++ with noise (Song et al., 2021)"),
        Part("network", "mlp", "modkit.nn.mlp:MLPNetwork", "Fully connected"),
        Part("schedule", "linear", "modkit.diffusion.schedules:Linear", "Linear betas (Ho et al., 2020)"),
        Part("schedule", "cosine", "modkit.diffusion.schedules:Cosine", "Squared cosine (Nichol & Dhariwal, 2021)"),
        Part("schedule", "edm", "modkit.diffusion.schedules:EDM", "Unscaled data, growing noise (Karras et al., 2022)"),
        Part("schedule", "vp", "modkit.diffusion.schedules:VP", "Variance-preserving, linear rate (Song et al., 2021)"),
        Part("schedule", "flow", "modkit.diffusion.schedules:Flow", "A line from data to noise (Liu et al., 2023)"),
        Part(
            "times", "uniform", "modkit.diffusion.time_sampling:Uniform", "Uniform over the schedule (Ho et al., 2020)"
        ),
        Part(
            "times",
            "log-normal",
            "modkit.diffusion.time_sampling:LogNormal",
            "Log-normal noise levels (Karras et al., 2022)",
        ),
        Part("loss-weight", "simple", "modkit.diffusion.loss_weights:Simple", "One at all times (Ho et al., 2020)"),
        Part(
            "loss-weight",
            "min-snr",
            "modkit.diffusion.loss_weights:MinSNR",
            "Clamped signal to noise (Hang et al., 2023)",
        ),
        Part("parametrization", "eps", "modkit.diffusion.parametrizations:Eps", "Predicts the noise (Ho et al., 2020)"),
        Part(
            "parametrization",
            "eps-learned",
            "modkit.diffusion.parametrizations:EpsLearned",
            "Predicts the noise and the variance (Nichol and Dhariwal, 2021)",
        ),
        Part("parametrization", "x0", "modkit.diffusion.parametrizations:X0", "Predicts the data"),
        Part(
            "parametrization", "v", "modkit.diffusion.parametrizations:V", "Predicts the velocity (Salimans & Ho, 2022)"
        ),
        Part("parametrization", "edm", "modkit.diffusion.parametrizations:EDM", "Preconditioned (Karras et al., 2022)"),
        Part(
            "parametrization",
            "flow",
            "modkit.diffusion.parametrizations:Flow",
            "Predicts eps - x_0 (Lipman et al., 2023)",
        ),
        Part("sampler", "ancestral", "modkit.samplers.ancestral:Ancestral", "DDPM's posterior (Ho et al., 2020)"),
        Part("sampler", "ddim", "modkit.samplers.ddim:DDIM", "Few steps (Song et al., 2021)"),
        Part("sampler", "euler", "modkit.samplers.euler:Euler", "First order (Karras et al., 2022)"),
        Part("sampler", "heun", "modkit.samplers.heun:Heun", "Second order, with churn (Karras et al., 2022)"),
        Part("sampler", "dpm-solver++", "modkit.samplers.dpm_solver:DPMSolverPlusPlus", "Multistep (Lu et al., 2022)"),
        Part("guidance", "none", "modkit.diffusion.guidance:NoGuidance", "The conditional denoiser as it is"),
        Part("guidance", "cfg", "modkit.diffusion.guidance:ClassifierFree", "Classifier-free (Ho & Salimans, 2022)"),
        Part(
            "prior-network", "transformer", "modkit.nn.transformer:Transformer", "GPT-2's blocks (Esser et al., 2021)"
        ),
        Part("decoding", "raster", "modkit.decodings.raster:Raster", "One after another; temperature, top-k, top-p"),
        Part("decoding", "maskgit", "modkit.decodings.maskgit:MaskGIT", "Few steps from masks (Chang et al., 2022)"),
        # Conditions, weights, optimisation
        Part("conditioner", "none", "modkit.conditioners:NoConditioner", "No condition"),
        Part("conditioner", "label", "modkit.conditioners:Label", "A class label, embedded"),
        Part("conditioner", "tokens", "modkit.conditioners.tokens:Tokens", "Token ids, through a transformer"),
        Part("conditioner", "map", "modkit.conditioners.maps:Map", "Maps beside x"),
        Part("conditioner", "encoded", "modkit.conditioners.encoded:Encoded", "A picture, through an autoencoder"),
        Part("conditioner", "several", "modkit.conditioners.several:Several", "Several conditioners as one"),
        Part("weight", "constant", "modkit.losses.coefficients:Constant", "A number"),
        Part("weight", "warmup", "modkit.losses.coefficients:Warmup", "Grows linearly to a number"),
        Part(
            "weight",
            "adaptive",
            "modkit.losses.coefficients:Adaptive",
            "Balances gradients, VQGAN's (Esser et al., 2021)",
        ),
        Part("optimizer", "adam", "modkit.optim.optimizers:adam", "Adam (Kingma & Ba, 2015)"),
        Part("optimizer", "adamw", "modkit.optim.optimizers:adamw", "Decoupled decay (Loshchilov & Hutter, 2019)"),
        Part("optimizer", "sgd", "modkit.optim.optimizers:sgd", "Gradient descent with momentum"),
        Part("optimizer", "rmsprop", "modkit.optim.optimizers:rmsprop", "RMSProp (Tieleman & Hinton, 2012)"),
        Part("lr-schedule", "constant", "modkit.optim.lr_schedules:constant", "Constant after a warm-up"),
        Part("lr-schedule", "cosine", "modkit.optim.lr_schedules:cosine", "Half a cosine (Loshchilov & Hutter, 2017)"),
        Part("lr-schedule", "linear", "modkit.optim.lr_schedules:linear", "Falls linearly"),
        # Data, and around a run
        Part("data", "digits", "modkit.data.digits:Digits", "scikit-learn's handwritten digits, embedded"),
        Part("data", "ring", "modkit.data.mixture:Ring", "Gaussians on a ring"),
        Part("data", "grid", "modkit.data.mixture:Grid", "Gaussians on a grid"),
        Part("data", "fashion-mnist", "modkit.data.fashion_mnist:FashionMNIST", "Clothes, 28×28 (Xiao et al., 2017)"),
        Part("data", "image-folder", "modkit.data.image_folder:ImageFolder", "Pictures in a folder"),
        Part("data", "corrupted", "modkit.data.corrupted:Corrupted", "Data with a corruption's fields"),
        Part("corruption", "mask", "modkit.data.corruptions:Mask", "A box or a half hidden, to in-paint"),
        Part("corruption", "low-res", "modkit.data.corruptions:LowRes", "A smaller copy, to super-resolve"),
        # Evaluation
        Part("features", "pixels", "modkit.features.pixels:Pixels", "Values as they are"),
        Part("features", "classifier", "modkit.features.classifier:Classifier", "A small classifier's; digits' ships"),
        Part("features", "random-conv", "modkit.features.random_conv:RandomConv", "A fixed random network's"),
        Part("features", "inception", "modkit.features.inception:Inception", "FID's (Heusel et al., 2017)"),
        Part(
            "features",
            "torchvision",
            "modkit.features.pretrained:TorchVision",
            "A torchvision network's, weights given",
        ),
        Part("features", "timm", "modkit.features.pretrained:Timm", "A timm network's, weights given"),
        Part("features", "dinov2", "modkit.features.pretrained:dinov2", "FD-DINOv2's (Stein et al., 2023)"),
        Part("features", "clip", "modkit.features.pretrained:clip", "CMMD's (Jayasumana et al., 2024)"),
        Part("features", "lpips", "modkit.features.lpips:LPIPS", "LPIPS' (Zhang et al., 2018), weights given"),
        Part("metric", "fd", "modkit.metrics.frechet:FrechetDistance", "Fréchet distance (Heusel et al., 2017)"),
        Part("metric", "fd-infinity", "modkit.metrics.frechet_infinity:FrechetInfinity", "FD∞ (Chong & Forsyth, 2020)"),
        Part("metric", "kd", "modkit.metrics.kernel:KernelDistance", "Kernel distance, KID (Binkowski et al., 2018)"),
        Part("metric", "mmd", "modkit.metrics.kernel:MMD", "Maximum mean discrepancy (Gretton et al., 2012)"),
        Part("metric", "cmmd", "modkit.metrics.kernel:CMMD", "CMMD (Jayasumana et al., 2024)"),
        Part(
            "metric", "is", "modkit.metrics.inception_score:InceptionScore", "Inception Score (Salimans et al., 2016)"
        ),
        Part(
            "metric",
            "prdc",
            "modkit.metrics.precision_recall:PRDC",
            "Precision, recall, density and coverage in one pass",
        ),
        Part(
            "metric",
            "precision-recall",
            "modkit.metrics.precision_recall:PrecisionRecall",
            "Improved precision and recall (Kynkäänniemi et al., 2019)",
        ),
        Part(
            "metric",
            "density-coverage",
            "modkit.metrics.precision_recall:DensityCoverage",
            "Density and coverage (Naeem et al., 2020)",
        ),
        Part(
            "metric", "copying", "modkit.metrics.copying:Copying", "Nearness to the training data (Meehan et al., 2020)"
        ),
        Part(
            "metric",
            "reconstruction",
            "modkit.metrics.reconstruction:Reconstruction",
            "PSNR and SSIM (Wang et al., 2004)",
        ),
        Part(
            "metric",
            "reconstruction-fd",
            "modkit.metrics.reconstruction:ReconstructionFD",
            "Fréchet distance to reconstructions",
        ),
        Part("metric", "codebook", "modkit.metrics.codebook:Codebook", "Codes used, and their perplexity"),
        Part("metric", "bound", "modkit.metrics.bound:Bound", "ELBO or importance-weighted, bits per dimension"),
        Part("metric", "sharpness", "modkit.metrics.sharpness:Sharpness", "Fine detail beside the data's"),
        Part("metric", "modes", "modkit.metrics.modes:ModeCoverage", "Modes covered (Srivastava et al., 2017)"),
        Part(
            "metric",
            "sliced-wasserstein",
            "modkit.metrics.wasserstein:SlicedWasserstein",
            "Sliced 1-Wasserstein (Bonneel et al., 2015)",
        ),
        Part(
            "metric",
            "wasserstein",
            "modkit.metrics.wasserstein:Wasserstein",
            "Exact 1-Wasserstein (Peyré & Cuturi, 2019)",
        ),
        Part("metric", "cost", "modkit.metrics.cost:Cost", "Speed, latency, evaluations, FLOPs of sampling"),
        Part("metric", "label-accuracy", "modkit.metrics.label_accuracy:LabelAccuracy", "A classifier reads the label"),
        Part("logger", "tensorboard", "modkit.training.loggers:TensorBoard", "Losses and samples for TensorBoard"),
        Part("engine", "local", "modkit.engines.local:LocalEngine", "One process, one device"),
    ]
