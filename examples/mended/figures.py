"""The figures, in the order of the table; a defect with several figures has several rows."""

from __future__ import annotations

from examples.mended.figure import Figure
from examples.mended.games import (
    compare_statistics,
    leave_norm_out,
    move_logits,
    reach_conditioner,
    set_activation,
)
from examples.mended.latents import bound_binary_data, draw_latents, train_readme
from examples.mended.levels import count_float64, draw_edm_levels, read_latent_levels
from examples.mended.sampling import (
    amplify_error,
    ask_below_the_table,
    choose_clipping,
    follow_from_bfloat16,
    follow_in_2_steps,
    follow_in_18_steps,
    follow_the_line,
)
from examples.mended.swaps import (
    guide_without_null,
    leave_fields_unread,
    predict_eps,
    scale_by_channel,
    swap_bottleneck,
    swap_prior,
)

__all__ = ["FIGURES"]

_RMSE = "rmse, lower"

_ALL = (
    Figure(
        "readme",
        "README's spec draws latents far from the data's",
        "deviation of drawn latents after 40 + 150 steps",
        "1",
        train_readme,
    ),
    Figure(
        "amplification",
        "`cosine` and DDIM multiply the network's error",
        "its growth in the first step, with the default parametrization",
        "below 10",
        amplify_error,
    ),
    Figure("eps", "the same where `eps` is asked for", "`eps` on a latent", "refused", predict_eps),
    Figure(
        "edm-alone",
        "`schedule=edm` alone keeps uniform times",
        "training levels below 1, in %; their median",
        "most; about .3",
        draw_edm_levels,
    ),
    Figure(
        "table-end",
        "samplers start at a table's last level",
        "18 steps of Heun, of Euler, on `cosine`",
        _RMSE,
        follow_in_18_steps,
    ),
    Figure("two-levels", "two Karras levels are one step", "2 steps of Heun on `edm`", _RMSE, follow_in_2_steps),
    Figure(
        "even-times",
        "no sampler visits even t on `flow`",
        "8 evaluations of 2M",
        _RMSE,
        follow_the_line,
    ),
    Figure(
        "latent-levels",
        "levels are those of data of deviation .5",
        "of a latent: median training level; lowest, highest; sigma_data",
        "twice those of deviation .5",
        read_latent_levels,
    ),
    Figure(
        "by-channel",
        "a latent has one scale",
        "`by_channel: true`",
        "accepted",
        scale_by_channel,
    ),
    Figure(
        "bfloat16", "x_t is rounded in each step", "50, 1000 steps of DDIM in bfloat16", _RMSE, follow_from_bfloat16
    ),
    Figure(
        "float64",
        "float64 is sent to devices without it",
        "tensors in a step of training and 3 of sampling",
        "0",
        count_float64,
    ),
    Figure("cfg", "guidance where nothing is dropped", "`cfg` without a conditioner", "refused", guide_without_null),
    Figure(
        "below-table",
        "`sigma_min` below a table's first level",
        "lowest index that the network is asked for",
        "refused",
        ask_below_the_table,
    ),
    Figure("clip", "clipping cannot be turned off", "a prediction of 7, its range ending at 1", "7", choose_clipping),
    Figure(
        "swap-prior",
        "a swap of models keeps what happens to fit",
        "`model.prior=denoising-gan` on latent diffusion",
        "its own 4 steps",
        swap_prior,
    ),
    Figure(
        "swap-bottleneck",
        "a weight of a loss that is gone",
        "`bottleneck=fsq` with a weight on `kl`",
        "accepted",
        swap_bottleneck,
    ),
    Figure(
        "conditioner",
        "the generator rewrites what its judge reads",
        "gradient to the conditioner through the judge's input",
        "norm, 0",
        reach_conditioner,
    ),
    Figure(
        "projection",
        "spectral norm leaves the condition's embedding out",
        "growth of what labels do to a logit as it grows 1000-fold",
        "factor, 1",
        move_logits,
    ),
    Figure(
        "two-stage-vae",
        "a VAE as the prior draws means",
        "variance of drawn latents by that of encoded ones",
        "nearer to 1",
        draw_latents,
    ),
    Figure(
        "corrupted",
        "fields of a corruption that nobody reads",
        "an autoencoder of masked digits",
        "refused",
        leave_fields_unread,
    ),
    Figure(
        "bernoulli",
        "`bernoulli` has no bound",
        "bound of 64 binary values, untrained",
        "nats, near -64 log 2 = -44.4",
        bound_binary_data,
    ),
    Figure(
        "batch-norm",
        "averaged weights have the raw ones' statistics",
        "mean |log ratio| of batch norm's variances to measured ones",
        "0",
        compare_statistics,
    ),
    Figure(
        "norm-none", "R1 on a critic with batch norm", "`norm: none` of `dcgan` and `patch`", "accepted", leave_norm_out
    ),
    Figure(
        "d2gan",
        "`d2gan-ring` is not the paper's setting",
        "`activation: relu`, `init_std: .01` of `mlp`",
        "accepted",
        set_activation,
    ),
)

FIGURES = {figure.name: figure for figure in _ALL}
"""All figures, by name."""
