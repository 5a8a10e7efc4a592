r"""taming-transformers' first stages: VQModel as `conv` with `vq`, GumbelVQ with `gumbel`, and their critic as `patch`.

    encoder -> quant_conv -> nearest code -> post_quant_conv -> decoder

The networks are latent diffusion's (`compvis_kl`). In taming's quantizer as trained, beta = 1/4 weights the codes' loss
instead of the commitment's: ours is `commitment: 1` and a weight of 1/4 on `codebook`. GumbelVQ maps features by two
1x1 convolutions, `quant_conv` and `proj`, which are composed into one here.

References:
    Taming Transformers for High-Resolution Image Synthesis (Esser et al., 2021), https://arxiv.org/abs/2012.09841
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from modkit_checkpoints.arguments import Arguments
from modkit_checkpoints.compvis_config import find_model, read_lightning, read_target
from modkit_checkpoints.compvis_kl import read_first_stage
from modkit_checkpoints.conversion import Conversion, rename

__all__ = ["Quantized", "convert"]

_VQ: dict[str, Any] = {
    **dict.fromkeys("ddconfig lossconfig n_embed embed_dim ckpt_path image_key colorize_nlabels monitor remap".split()),
    "ignore_keys": [],
    "sane_index_shape": False,
}
_GUMBEL = {"kl_weight": 1e-8, "temperature_scheduler_config": None}
_CRITIC = "loss.discriminator."
_LOSSES = {
    "disc_start": 0,
    "disc_num_layers": 3,
    "disc_in_channels": 3,
    "disc_factor": 1.0,
    "disc_weight": 1.0,
    "disc_ndf": 64,
    "disc_conditional": False,
    "disc_loss": "hinge",
    "use_actnorm": False,
    **dict.fromkeys("codebook_weight pixelloss_weight perceptual_weight n_classes".split()),
}


class Quantized:
    """A first stage with codes as modkit's `autoencoder`.

    Args:
        node: Its `{target, params}`.
        where: The node's path, for error messages.
        theirs: Prefix of their keys.
        ours: Prefix of ours.

    Raises:
        ValueError: If it uses something for which modkit has no counterpart.
    """

    def __init__(self, node: Any, where: str, *, theirs: str = "", ours: str = "") -> None:
        name, params = read_target(node, where)
        if name not in ("VQModel", "VQNoDiscModel", "GumbelVQ"):
            raise ValueError(f"{where}.target is expected to be VQModel, VQNoDiscModel or GumbelVQ, got {name!r}")
        self.gumbel = name == "GumbelVQ"
        given = Arguments(f"{where}.params", params, {**_VQ, **(_GUMBEL if self.gumbel else {})})
        given.only("remap", [None], why="codes that are numbered anew")
        network = given.values["ddconfig"]
        if isinstance(network, Mapping) and list(network.get("ch_mult") or [1])[:1] != [1]:
            got = network["ch_mult"]
            raise ValueError(f"{where}.params.ddconfig: ch_mult is expected to begin with 1, as modkit's, got {got}")
        common = {key: value for key, value in given.values.items() if key in _VQ and key in params}
        stage = read_first_stage({"target": "VQModel", "params": common}, where, theirs=theirs, ours=ours)
        self.shape, self.latent, self.num_codes = stage.shape, stage.latent, given.integer("n_embed")
        self._theirs, self._ours, self._rules = theirs, ours, stage.rules
        self._losses = _read_losses(given.values["lossconfig"], f"{where}.params.lossconfig")
        self.spec = dict(stage.spec)
        if self.gumbel:
            width = self.spec["bottleneck"]["channels"]
            self.spec["bottleneck"] = {"use": "gumbel", "num_codes": self.num_codes, "channels": width}
            del self.spec["weights"]  # of the codes' loss

    def read_critic(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Returns what the checkpoint's critic, if any, adds to the spec.

        Raises:
            ValueError: If modkit has no such critic.
        """
        losses = self._losses
        if losses is None or not any(key.startswith(_CRITIC) for key in tensors):
            return {}
        for name in ("use_actnorm", "disc_conditional"):
            losses.only(name, [False], why="modkit has no counterpart")
        channels, layers = losses.integer("disc_ndf"), losses.integer("disc_num_layers")
        adaptive = {"use": "adaptive", "value": losses.number("disc_weight")}
        critic = {
            "use": "critic",
            "network": {"use": "patch", "channels": channels, "layers": layers},
            "adversarial": losses.only("disc_loss", ["hinge", "vanilla"]).replace("vanilla", "non-saturating"),
            "start": losses.integer("disc_start", low=0),
        }
        return {"judges": {"critic": critic}, "weights": {**self.spec.get("weights", {}), "critic": adaptive}}

    def convert(
        self, tensors: Mapping[str, Tensor], *, critic: bool = False
    ) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """Returns the model's weights, and the keys that were set aside.

        Raises:
            ValueError: If keys are unknown.
        """
        prefix = f"{self._theirs}{_CRITIC}"
        judges = {key: value for key, value in tensors.items() if critic and key.startswith(prefix)}
        others = {key: value for key, value in tensors.items() if key not in judges}
        weights, left = rename(self._compose(others) if self.gumbel else others, self._rules)
        book = f"{self._ours}bottleneck.codebook"
        if self.gumbel and f"{book}.codes" in weights:
            weights[book] = weights.pop(f"{book}.codes")
        elif not self.gumbel:
            weights[f"{book}.usage"] = torch.ones(self.num_codes)
        ours = f"{self._ours}judges.critic.network."
        named = {ours + key.removeprefix(prefix): value for key, value in judges.items()}
        return {**weights, **named}, left

    def _compose(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Composes `quant_conv` and `proj` into one convolution, and names the codes as VQModel does."""
        outer, inner = f"{self._theirs}quantize.proj", f"{self._theirs}quant_conv"
        made = dict(tensors)
        parts = [made.pop(f"{layer}.{kind}", None) for layer in (outer, inner) for kind in ("weight", "bias")]
        if any(part is None for part in parts):
            raise ValueError(f"expected weight and bias of {outer} and {inner}, got not all of them")
        weight, bias, first, offset = (part.double() for part in parts if part is not None)
        try:
            joined = torch.einsum("kcxy,cixy->kixy", weight, first), torch.einsum("kcxy,c->k", weight, offset) + bias
        except RuntimeError as error:
            raise ValueError(f"{outer} and {inner} do not fit each other: {error}") from error
        made[f"{inner}.weight"], made[f"{inner}.bias"] = (value.float() for value in joined)
        if (codes := made.pop(f"{self._theirs}quantize.embed.weight", None)) is not None:
            made[f"{self._theirs}quantize.embedding.weight"] = codes
        return made


def convert(source: Any, config: Any, raw: bool) -> Conversion:
    """Converts a first stage's checkpoint to an autoencoder; `raw` changes nothing, since taming keeps no averages.

    Raises:
        ValueError: If the configuration uses something for which modkit has no counterpart, or keys do not fit it.
    """
    tensors, others = read_lightning(source)
    stage = Quantized(find_model(config), "model")
    critic = stage.read_critic(tensors)
    weights, left = stage.convert(tensors, critic=bool(critic))
    spec = {"x": {"shape": list(stage.shape), "range": [-1.0, 1.0]}, "model": {**stage.spec, **critic}}
    return Conversion(spec, weights, (*others, *left))


def _read_losses(node: Any, where: str) -> Arguments | None:
    """Reads the arguments of a loss with a critic."""
    if node is None:
        return None
    name, params = read_target(node, where)
    return Arguments(f"{where}.params", params, _LOSSES) if name == "VQLPIPSWithDiscriminator" else None
