"""The catalogue of modkit's own parts.

They are registered through the same hook as those of any plug-in, but their names have no prefix.
"""

from __future__ import annotations

from typing import Any

from modkit.part import Part, hookimpl

__all__ = ["modkit_parts"]

_PARTS = {
    "model": (
        ("autoencoder", "models.autoencoder:Autoencoder", "AE, VAE, VQ-VAE; VQGAN's first stage"),
        ("gan", "models.gan:GAN", "Generator against discriminators (Goodfellow et al., 2014)"),
        ("bidirectional", "models.bidirectional:Bidirectional", "Generator and encoder: ALI, BiGAN, VEEGAN, InfoGAN"),
        ("diffusion", "models.diffusion:Diffusion", "Denoising diffusion (Ho et al., 2020)"),
        ("latent", "models.latent:Latent", "Any model of a latent (LDM: Rombach et al., 2022)"),
        ("decoded", "models.decoded:Decoded", "Any model as decoder (diffusion AE: Preechakul et al., 2022)"),
        ("autoregressive", "models.autoregressive:Autoregressive", "Codes in raster order (van den Oord et al., 2017)"),
        ("masked", "models.masked:Masked", "Codes from masks, MaskGIT's (Chang et al., 2022)"),
        ("cascade", "models.cascade:Cascade", "A model a level, each given the one above (Razavi et al., 2019)"),
        ("flow", "models.flow:Flow", "Exact likelihood by bijections (Dinh et al., 2017)"),
        ("mixture", "models.mixture:DiagonalMixture", "A mixture of diagonal Gaussians, learned by gradients"),
        ("vamp", "models.vamp:Vamp", "The posteriors of learned inputs as the prior (Tomczak and Welling, 2018)"),
        ("denoising-gan", "models.denoising_gan:DenoisingGAN", "Denoising diffusion GAN (Xiao et al., 2022)"),
    ),
    "encoder": (
        ("conv", "nn.conv:ConvEncoder", "Residual convolutions, halving"),
        ("mlp", "nn.mlp:MLPEncoder", "Fully connected"),
        ("dcgan", "nn.dcgan:DCGANEncoder", "DCGAN's critic without its head, to a vector (Radford et al., 2016)"),
        ("critic-features", "coders.critic_features:CriticFeatures", "Any discriminator's last features"),
        ("frozen-features", "coders.frozen_features:FrozenFeatures", "An extractor's (RAE: Zheng et al., 2025)"),
    ),
    "decoder": (
        ("conv", "nn.conv:ConvDecoder", "Residual convolutions, doubling"),
        ("mlp", "nn.mlp:MLPDecoder", "Fully connected"),
        ("dcgan", "nn.dcgan:DCGANDecoder", "DCGAN's generator, of a vector (Radford et al., 2016)"),
        ("generated", "coders.generated:Generated", "Any generator, its noise replaced by the latent"),
    ),
    "bottleneck": (
        ("identity", "bottlenecks.identity:Identity", "The features themselves"),
        ("gaussian", "bottlenecks.gaussian:Gaussian", "A VAE's (Kingma & Welling, 2014)"),
        ("deterministic", "bottlenecks.deterministic:Deterministic", "Points; normal prior (Tolstikhin et al., 2018)"),
        ("noised", "bottlenecks.noised:Noised", "Features, with noise in training (RAE: Zheng et al., 2025)"),
        ("vq", "bottlenecks.vq:VectorQuantizer", "Nearest code (van den Oord et al., 2017)"),
        (
            "residual-vq",
            "bottlenecks.residual_vq:ResidualQuantizer",
            "Sums of codes, coarse to fine (Lee et al., 2022)",
        ),
        ("fsq", "bottlenecks.fsq:FiniteScalarQuantizer", "Rounded channels, no codebook (Mentzer et al., 2023)"),
        ("lfq", "bottlenecks.lfq:LookupFreeQuantizer", "Signs as bits (Yu et al., 2023)"),
        ("gumbel", "bottlenecks.gumbel:GumbelQuantizer", "Drawn codes (Jang et al., 2017)"),
        ("top-down", "bottlenecks.top_down:TopDown", "A bottleneck a level (VQ-VAE-2: Razavi et al., 2019)"),
        ("ladder", "bottlenecks.ladder:Ladder", "Groups of latents, top down (NVAE: Vahdat & Kautz, 2020)"),
    ),
    "likelihood": (
        ("mse", "losses.likelihoods:MSE", "Gaussian of unit scale, constant left out"),
        ("l1", "losses.likelihoods:L1", "Laplace of unit scale, constant left out"),
        ("gaussian", "losses.likelihoods:Gaussian", "Gaussian of learned scale"),
        ("bernoulli", "losses.likelihoods:Bernoulli", "Bernoulli of each value"),
        ("discretized-logistic", "losses.levels:DiscretizedLogistic", "Logistics a level (Salimans et al., 2017)"),
        ("categorical", "losses.levels:Categorical", "A softmax of levels (van den Oord et al., 2016)"),
    ),
    "objective": (
        ("elbo", "losses.objectives:ELBO", "Evidence lower bound (Kingma & Welling, 2014)"),
        ("free-bits", "losses.objectives:FreeBits", "Nats a group that cost nothing (Kingma et al., 2016)"),
        ("capacity", "losses.objectives:Capacity", "Distance from a growing capacity (Burgess et al., 2018)"),
        ("balanced", "losses.objectives:Balanced", "Groups balanced while warming up (Vahdat & Kautz, 2020)"),
        ("iwae", "losses.importance:IWAE", "Importance-weighted, MIWAE and CIWAE (Burda et al., 2016)"),
    ),
    "judge": (
        ("critic", "judges.critic:CriticJudge", "A discriminator and its game (Esser et al., 2021)"),
        ("perceptual", "judges.perceptual:PerceptualJudge", "Distance of feature maps (Esser et al., 2021)"),
        ("latent-critic", "judges.latent_critic:LatentCritic", "AAE's and FactorVAE's (Makhzani et al., 2016)"),
        ("mmd", "judges.mmd:MMD", "Discrepancy from the prior (WAE: Tolstikhin et al., 2018)"),
        ("total-correlation", "judges.total_correlation:TotalCorrelation", "β-TCVAE's (Chen et al., 2018)"),
        ("mutual-information", "judges.total_correlation:MutualInformation", "Of x and z (Chen et al., 2018)"),
        ("dimension-wise-kl", "judges.total_correlation:DimensionWiseKL", "Of each z_j (Chen et al., 2018)"),
        ("dip", "judges.dip:DIP", "Covariance of the latents (DIP-VAE: Kumar et al., 2018)"),
    ),
    "bijection": (
        ("chain", "bijections.chain:Chain", "Several, one after another"),
        ("coupling", "bijections.coupling:Coupling", "Half given half, affine or splines (Dinh et al., 2017)"),
        ("autoregressive", "bijections.autoregressive:Autoregressive", "MAF, IAF (Papamakarios et al., 2017)"),
        ("linear", "bijections.linear:Linear", "Invertible 1×1 convolution (Kingma & Dhariwal, 2018)"),
        ("actnorm", "bijections.actnorm:Actnorm", "Scale and shift from data (Kingma & Dhariwal, 2018)"),
        ("squeeze", "bijections.squeeze:Squeeze", "Blocks of positions as channels, multi-scale"),
        ("inverse", "bijections.inverse:Inverse", "Another in the other direction"),
    ),
    "generator": (
        ("mlp", "nn.mlp:MLPGenerator", "Fully connected"),
        ("dcgan", "nn.dcgan:DCGANGenerator", "DCGAN's (Radford et al., 2016)"),
        ("resnet", "nn.resnet:ResNetGenerator", "Residual, SNGAN's to BigGAN's (Brock et al., 2019)"),
        ("r3gan", "nn.r3gan:R3GANGenerator", "Without norms, R3GAN's (Huang et al., 2024)"),
        ("stylegan2", "nn.stylegan2:StyleGAN2Generator", "By styles, StyleGAN2's (Karras et al., 2020)"),
    ),
    "discriminator": (
        ("mlp", "nn.mlp:MLPDiscriminator", "Fully connected"),
        ("dcgan", "nn.dcgan:DCGANDiscriminator", "DCGAN's (Radford et al., 2016)"),
        ("patch", "nn.patch:PatchDiscriminator", "PatchGAN's (Isola et al., 2017)"),
        ("resnet", "nn.resnet:ResNetDiscriminator", "Residual, SNGAN's to BigGAN's (Miyato et al., 2018)"),
        ("r3gan", "nn.r3gan:R3GANDiscriminator", "Without norms, R3GAN's (Huang et al., 2024)"),
        ("stylegan2", "nn.stylegan2_discriminator:StyleGAN2Discriminator", "StyleGAN2's (Karras et al., 2020)"),
        ("ncsnpp", "nn.ncsnpp_discriminator:NCSNppDiscriminator", "DDGAN's (Xiao et al., 2022)"),
        ("packed", "nn.packed:Packed", "Several samples at once (Lin et al., 2018)"),
    ),
    "adversarial": (
        ("non-saturating", "losses.adversarial:NonSaturating", "Logistic losses (Goodfellow et al., 2014)"),
        ("minimax", "losses.adversarial:Minimax", "The minimax game (Goodfellow et al., 2014)"),
        ("density-ratio", "losses.adversarial:DensityRatio", "The logit as log p/q (Kim & Mnih, 2018)"),
        ("hinge", "losses.adversarial:Hinge", "Hinge losses (Lim & Ye, 2017)"),
        ("least-squares", "losses.adversarial:LeastSquares", "Squared losses (Mao et al., 2017)"),
        ("wasserstein", "losses.adversarial:Wasserstein", "Means of logits (Arjovsky et al., 2017)"),
        ("relativistic", "losses.adversarial:Relativistic", "Real beside fake (Jolicoeur-Martineau, 2019)"),
        ("kl", "losses.adversarial:KL", "D2GAN's first game (Nguyen et al., 2017)"),
        ("reverse-kl", "losses.adversarial:ReverseKL", "D2GAN's second game (Nguyen et al., 2017)"),
    ),
    "augmentation": (
        ("diffaugment", "augmentations.diffaugment:DiffAugment", "Colour, translation, cutout (Zhao et al., 2020)"),
        ("ada", "augmentations.ada:ADA", "As much as the critic overfits (Karras et al., 2020)"),
    ),
    "regularizer": (
        ("r1", "losses.regularizers:R1", "Critic's slope at reals (Mescheder et al., 2018)"),
        ("r2", "losses.regularizers:R2", "Critic's slope at fakes (Mescheder et al., 2018)"),
        ("gradient-penalty", "losses.regularizers:GradientPenalty", "WGAN-GP's (Gulrajani et al., 2017)"),
        ("consistency", "losses.consistency:Consistency", "Logits under augmentation (Zhao et al., 2021)"),
        ("feature-matching", "losses.feature_matching:FeatureMatching", "Mean features (Salimans et al., 2016)"),
        ("path-length", "losses.path_length:PathLength", "Generator's slope (Karras et al., 2020)"),
        ("contractive", "losses.latent_regularizers:Contractive", "Encoder's slope (Rifai et al., 2011)"),
        ("decoder-gradient", "losses.latent_regularizers:DecoderGradient", "Decoder's slope (Ghosh et al., 2020)"),
        ("latent-norm", "losses.latent_regularizers:LatentNorm", "Size of latents (Ghosh et al., 2020)"),
    ),
    "network": (
        ("unet", "nn.unet:UNet", "U-Net with attention (Ho et al., 2020)"),
        ("edm2-unet", "nn.edm2_unet:EDM2UNet", "U-Net that keeps magnitudes (Karras et al., 2024)"),
        ("dit", "nn.dit:DiT", "Transformer over patches (Peebles & Xie, 2023)"),
        ("ncsnpp", "nn.ncsnpp:NCSNpp", "NCSN++ with noise (Song et al., 2021)"),
        ("mlp", "nn.mlp_network:MLPNetwork", "Fully connected"),
    ),
    "schedule": (
        ("linear", "diffusion.schedules:Linear", "Linear betas (Ho et al., 2020)"),
        ("cosine", "diffusion.schedules:Cosine", "Squared cosine (Nichol & Dhariwal, 2021)"),
        ("edm", "diffusion.schedules:EDM", "Unscaled data, growing noise (Karras et al., 2022)"),
        ("vp", "diffusion.schedules:VP", "Variance-preserving, linear rate (Song et al., 2021)"),
        ("flow", "diffusion.schedules:Flow", "A line from data to noise (Liu et al., 2023)"),
        ("log-linear", "diffusion.log_snr:LogLinear", "Log SNR linear in t (Kingma et al., 2021)"),
        ("learned", "diffusion.log_snr:Learned", "Learned log SNR (Kingma et al., 2021)"),
        ("zero-snr", "diffusion.zero_snr:ZeroTerminalSNR", "Any table, down to no signal (Lin et al., 2023)"),
    ),
    "times": (
        ("uniform", "diffusion.time_sampling:Uniform", "Uniform over the schedule (Ho et al., 2020)"),
        ("log-normal", "diffusion.time_sampling:LogNormal", "Log-normal noise levels (Karras et al., 2022)"),
        ("low-discrepancy", "diffusion.low_discrepancy:LowDiscrepancy", "Spread over a batch (Kingma et al., 2021)"),
    ),
    "coupling": (
        ("independent", "diffusion.couplings:Independent", "Independent of the data (Ho et al., 2020)"),
        ("optimal", "diffusion.couplings:Optimal", "Optimal transport of a batch (Tong et al., 2024)"),
        ("pairs", "diffusion.couplings:Pairs", "Noise that comes with the data (Liu et al., 2023)"),
    ),
    "alignment": (
        ("features", "diffusion.alignments:FeatureAlignment", "With an extractor's features (Yu et al., 2025)"),
        ("field", "diffusion.alignments:FieldAlignment", "With features that come with the data (Yu et al., 2025)"),
    ),
    "loss-weight": (
        ("simple", "diffusion.loss_weights:Simple", "One at all times (Ho et al., 2020)"),
        ("min-snr", "diffusion.loss_weights:MinSNR", "Clamped signal to noise (Hang et al., 2023)"),
        ("likelihood", "diffusion.loss_weights:Likelihood", "Terms of the variational bound (Kingma et al., 2021)"),
        ("uncertainty", "diffusion.uncertainty:Uncertainty", "Another's, and a learned scale (Karras et al., 2024)"),
    ),
    "parametrization": (
        ("eps", "diffusion.parametrizations:Eps", "Predicts the noise (Ho et al., 2020)"),
        (
            "eps-learned",
            "diffusion.parametrizations:EpsLearned",
            "Predicts the noise and the variance (Nichol and Dhariwal, 2021)",
        ),
        ("x0", "diffusion.parametrizations:X0", "Predicts the data"),
        ("v", "diffusion.parametrizations:V", "Predicts the velocity (Salimans & Ho, 2022)"),
        ("edm", "diffusion.parametrizations:EDM", "Preconditioned (Karras et al., 2022)"),
        ("flow", "diffusion.parametrizations:Flow", "Predicts eps - x_0 (Lipman et al., 2023)"),
    ),
    "grid": (
        ("auto", "grids.auto:choose_grid", "`trailing` on a table, `continuous` without one"),
        ("continuous", "grids.auto:choose_continuous", "`even` on a straight schedule, `karras` elsewhere"),
        ("trailing", "grids.indices:Trailing", "A table's indices, down from the last (Lin et al., 2023)"),
        ("leading", "grids.indices:Leading", "A table's indices, up from the first (Song et al., 2021)"),
        ("linspace", "grids.indices:Linspace", "A table's indices, with both ends (Nichol & Dhariwal, 2021)"),
        ("even", "grids.even:Even", "Even in t, shifted by choice (Esser et al., 2024)"),
        ("karras", "grids.levels:Karras", "EDM's noise levels (Karras et al., 2022)"),
        ("log-snr", "grids.levels:LogSNR", "Even in log SNR (Lu et al., 2022)"),
        ("list", "grids.levels:Listed", "A list of noise levels (Sabour et al., 2024)"),
    ),
    "sampler": (
        ("ancestral", "samplers.ancestral:Ancestral", "DDPM's posterior (Ho et al., 2020)"),
        ("ddim", "samplers.ddim:DDIM", "Few steps (Song et al., 2021)"),
        ("euler", "samplers.euler:Euler", "First order (Karras et al., 2022)"),
        ("heun", "samplers.heun:Heun", "Second order, with churn (Karras et al., 2022)"),
        (
            "dpm-solver++",
            "samplers.dpm_solver:DPMSolverPlusPlus",
            "Multistep, to order 3, with noise (Lu et al., 2022)",
        ),
        ("unipc", "samplers.unipc:UniPC", "Multistep with a corrector, of any order (Zhao et al., 2023)"),
        ("sde", "samplers.sde:SDE", "Euler-Maruyama with a chosen diffusion (Ma et al., 2024)"),
        ("consistency", "samplers.consistency:Consistency", "New noise at each step (Song et al., 2023)"),
        ("restart", "samplers.restart:Restart", "Goes back to more noise, around any sampler (Xu et al., 2023)"),
    ),
    "guidance": (
        ("none", "diffusion.guidance:NoGuidance", "The conditional denoiser as it is"),
        ("cfg", "diffusion.guidance:ClassifierFree", "Classifier-free (Ho & Salimans, 2022)"),
        ("autoguidance", "models.autoguidance:AutoGuidance", "A worse version of the model (Karras et al., 2024)"),
        ("perturbed", "diffusion.guidance:Perturbed", "Its own attention perturbed (Ahn et al., 2024)"),
    ),
    "prior-network": (("transformer", "nn.transformer:Transformer", "GPT-2's blocks (Esser et al., 2021)"),),
    "decoding": (
        ("raster", "decodings.raster:Raster", "One after another; temperature, top-k, top-p"),
        ("maskgit", "decodings.maskgit:MaskGIT", "Few steps from masks (Chang et al., 2022)"),
    ),
    "conditioner": (
        ("none", "conditioners:NoConditioner", "No condition"),
        ("label", "conditioners:Label", "A class label, embedded"),
        ("tokens", "conditioners.tokens:Tokens", "Token ids, through a transformer"),
        ("vector", "conditioners.vector:Vector", "Real values, through an MLP"),
        ("map", "conditioners.maps:Map", "Maps beside x"),
        ("encoded", "conditioners.encoded:Encoded", "A picture, through an autoencoder"),
        ("several", "conditioners.several:Several", "Several conditioners as one"),
    ),
    "weight": (
        ("constant", "losses.coefficients:Constant", "A number"),
        ("warmup", "losses.coefficients:Warmup", "Grows linearly to a number"),
        ("cyclical", "losses.coefficients:Cyclical", "Grows linearly, again and again (Fu et al., 2019)"),
        ("adaptive", "losses.coefficients:Adaptive", "Balances gradients, VQGAN's (Esser et al., 2021)"),
    ),
    "optimizer": (
        ("adam", "optim.optimizers:adam", "Adam (Kingma & Ba, 2015)"),
        ("adamw", "optim.optimizers:adamw", "Decoupled decay (Loshchilov & Hutter, 2019)"),
        ("sgd", "optim.optimizers:sgd", "Gradient descent with momentum"),
        ("rmsprop", "optim.optimizers:rmsprop", "RMSProp (Tieleman & Hinton, 2012)"),
        ("torch", "optim.foreign:make_optimizer", "Any optimizer of torch's, by the name of its class"),
    ),
    "lr-schedule": (
        ("constant", "optim.lr_schedules:constant", "Constant after a warm-up"),
        ("cosine", "optim.lr_schedules:cosine", "Half a cosine (Loshchilov & Hutter, 2017)"),
        ("inverse-root", "optim.lr_schedules:inverse_root", "Falls with the root of steps (Karras et al., 2024)"),
        ("linear", "optim.lr_schedules:linear", "Falls linearly"),
    ),
    "data": (
        ("digits", "data.digits:Digits", "scikit-learn's handwritten digits, embedded"),
        ("ring", "data.mixture:Ring", "Gaussians on a ring"),
        ("grid", "data.mixture:Grid", "Gaussians on a grid"),
        ("sprites", "data.sprites:Sprites", "Shapes of five known factors, as dSprites"),
        ("checkerboard", "data.checkerboard:Checkerboard", "Points on every second square"),
        ("spirals", "data.spirals:Spirals", "Points along spirals"),
        ("fashion-mnist", "data.fashion_mnist:FashionMNIST", "Clothes, 28×28 (Xiao et al., 2017)"),
        ("torchvision", "data.torchvision_sets:TorchvisionSet", "MNIST, CIFAR-10, CelebA and others, by torchvision"),
        ("image-folder", "data.image_folder:ImageFolder", "Pictures in a folder"),
        ("archive", "data.archive:Archive", "Pictures in .zip or .tar archives"),
        ("array", "data.array:Array", "Arrays of pictures, values or codes in .npy files"),
        ("augmented", "data.augmented:Augmented", "Augmented pictures, with the parameters (Karras et al., 2022)"),
        ("corrupted", "data.corrupted:Corrupted", "Data with a corruption's fields"),
        ("binarized", "data.binarized:Binarized", "Data of two values, for `bernoulli`"),
        ("subset", "data.subset:Subset", "Data with some of the training samples"),
        ("stacked", "data.stacked:Stacked", "Three samples as channels: 1000 classes (Srivastava et al., 2017)"),
    ),
    "corruption": (
        ("mask", "data.corruptions:Mask", "A box or a half hidden, to in-paint"),
        ("low-res", "data.corruptions:LowRes", "A smaller copy, to super-resolve"),
        ("noise", "data.noise:Noise", "Gaussian noise added, to denoise"),
        ("salt-pepper", "data.noise:SaltPepper", "Positions set to the lowest or highest value, to denoise"),
        ("drop", "data.noise:Drop", "Positions or patches set to one value, to fill in"),
    ),
    "features": (
        ("pixels", "features.pixels:Pixels", "Values as they are"),
        ("classifier", "features.classifier:Classifier", "A small classifier's; digits' ships"),
        (
            "stacked-classifier",
            "features.stacked_classifier:StackedClassifier",
            "A classifier's of each stacked sample",
        ),
        ("random-conv", "features.random_conv:RandomConv", "A fixed random network's"),
        ("inception", "features.inception:Inception", "FID's (Heusel et al., 2017)"),
        ("torchvision", "features.pretrained:TorchVision", "A torchvision network's, weights given"),
        ("timm", "features.pretrained:Timm", "A timm network's, weights given"),
        ("dinov2", "features.pretrained:dinov2", "FD-DINOv2's (Stein et al., 2023)"),
        ("clip", "features.pretrained:clip", "CMMD's (Jayasumana et al., 2024)"),
        ("lpips", "features.lpips:LPIPS", "LPIPS' (Zhang et al., 2018), weights given"),
    ),
    "metric": (
        ("fd", "metrics.frechet:FrechetDistance", "Fréchet distance (Heusel et al., 2017)"),
        ("fd-infinity", "metrics.frechet_infinity:FrechetInfinity", "FD∞ (Chong & Forsyth, 2020)"),
        ("kd", "metrics.kernel:KernelDistance", "Kernel distance, KID (Binkowski et al., 2018)"),
        ("mmd", "metrics.kernel:MMD", "Maximum mean discrepancy (Gretton et al., 2012)"),
        ("cmmd", "metrics.kernel:CMMD", "CMMD (Jayasumana et al., 2024)"),
        ("is", "metrics.inception_score:InceptionScore", "Inception Score (Salimans et al., 2016)"),
        ("prdc", "metrics.precision_recall:PRDC", "Precision, recall, density and coverage in one pass"),
        (
            "precision-recall",
            "metrics.precision_recall:PrecisionRecall",
            "Improved precision and recall (Kynkäänniemi et al., 2019)",
        ),
        ("density-coverage", "metrics.precision_recall:DensityCoverage", "Density and coverage (Naeem et al., 2020)"),
        ("copying", "metrics.copying:Copying", "Nearness to the training data (Meehan et al., 2020)"),
        ("reconstruction", "metrics.reconstruction:Reconstruction", "PSNR and SSIM (Wang et al., 2004)"),
        ("reconstruction-fd", "metrics.reconstruction:ReconstructionFD", "Fréchet distance to reconstructions"),
        ("codebook", "metrics.codebook:Codebook", "Codes used, and their perplexity"),
        ("latent-usage", "metrics.latent_usage:LatentUsage", "KL a dimension, active units, aggregate KL"),
        ("disentanglement", "metrics.disentanglement:Disentanglement", "MIG, DCI, FactorVAE and β-VAE scores"),
        ("bound", "metrics.bound:Bound", "ELBO or importance-weighted, bits per dimension"),
        ("log-likelihood", "metrics.log_likelihood:LogLikelihood", "log p(x), bits per dimension (Song et al., 2021)"),
        ("sharpness", "metrics.sharpness:Sharpness", "Fine detail beside the data's"),
        ("modes", "metrics.modes:ModeCoverage", "Modes covered (Srivastava et al., 2017)"),
        ("class-modes", "metrics.class_modes:ClassModes", "Classes found, and their shares (Lin et al., 2018)"),
        ("sliced-wasserstein", "metrics.wasserstein:SlicedWasserstein", "Sliced 1-Wasserstein (Bonneel et al., 2015)"),
        ("wasserstein", "metrics.wasserstein:Wasserstein", "Exact 1-Wasserstein (Peyré & Cuturi, 2019)"),
        ("path-length", "metrics.path_length:PathLength", "Perceptual path length (Karras et al., 2019)"),
        ("cost", "metrics.cost:Cost", "Speed, latency, evaluations, FLOPs of sampling"),
        ("label-accuracy", "metrics.label_accuracy:LabelAccuracy", "A classifier reads the label"),
    ),
    "logger": (
        ("tensorboard", "training.loggers:TensorBoard", "Losses and samples for TensorBoard"),
        ("csv", "training.csv_file:CSVFile", "Losses and scores as a table, a row a step"),
    ),
    "engine": (
        ("local", "engines.local:LocalEngine", "One process, one device"),
        ("ddp", "engines.ddp:DDPEngine", "Several processes, each with the whole model (Li et al., 2020)"),
        ("fsdp2", "engines.fsdp2:FSDP2Engine", "Several processes that divide the weights (Zhao et al., 2023)"),
    ),
}
"""The name, target and summary of each part, by kind."""

_EARLIER: dict[tuple[str, str], dict[str, Any]] = {
    ("model", "bidirectional"): {"variance": 0.5},
    ("objective", "balanced"): {"by_scale": False},
    ("regularizer", "path-length"): {"by_layer": False},
    **{("bottleneck", name): {"tokens": 1} for name in ("fsq", "gumbel", "lfq", "residual-vq", "vq")},
    **{("generator", name): {"balance": False} for name in ("dcgan", "mlp", "stylegan2")},
    ("generator", "resnet"): {"balance": False, "attention_norm": True},
    ("discriminator", "resnet"): {"attention_norm": True},
    ("generator", "r3gan"): {"balance": False, "resample_filter": [1.0, 2.0, 1.0]},
    ("discriminator", "r3gan"): {"resample_filter": [1.0, 2.0, 1.0]},
    **{("sampler", name): {"grid": "trailing"} for name in ("ancestral", "dpm-solver++")},
    **{
        ("sampler", name): {"grid": {"use": "karras", "sigma_min": None, "sigma_max": None}}
        for name in ("euler", "heun")
    },
    ("guidance", "perturbed"): {"layers": "all"},
}
"""`Part.earlier`, by kind and name."""

_RENAMED: dict[tuple[str, str], dict[str, Any]] = {
    ("model", "autoencoder"): {"renamed": {"rate": "objective"}, "migrate": "modkit.models.former:migrate"},
    ("objective", "elbo"): {"aliases": ("sum",)},
}
"""Former names of parts and of their parameters, by kind and name."""


@hookimpl
def modkit_parts() -> list[Part]:
    """Declares the parts of modkit."""
    rows = [(kind, *row) for kind, parts in _PARTS.items() for row in parts]
    return [
        Part(
            kind,
            name,
            f"modkit.{target}",
            summary,
            earlier=_EARLIER.get((kind, name), {}),
            **_RENAMED.get((kind, name), {}),
        )
        for kind, name, target, summary in rows
    ]
