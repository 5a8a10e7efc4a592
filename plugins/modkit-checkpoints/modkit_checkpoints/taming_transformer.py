r"""taming-transformers' second stage: Net2NetTransformer as `latent` of a first stage and `autoregressive`.

    [c, z_0 ... z_(n-2)] + p  ->  logits 0 ... n - 1

c is one token before the codes, of the codes' own embedding: a fixed one (unconditional), or the class (`Labelator`).
Ours begins with a start token, which is that fixed one, or zero with an embedding of the class added to it; no class is
zero. What is put before the codes as a map (segmentations, depth, coordinates, boxes) has no counterpart.

References:
    Taming Transformers for High-Resolution Image Synthesis (Esser et al., 2021), section 3.2,
    https://arxiv.org/abs/2012.09841
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor

from modkit_checkpoints.arguments import Arguments
from modkit_checkpoints.compvis_config import lightning, model_of, target
from modkit_checkpoints.conversion import Conversion, Rule, aside, matrix, pair, renamed
from modkit_checkpoints.taming_vqgan import Quantized

__all__ = ["convert"]

_MODEL: dict[str, Any] = {
    **dict.fromkeys("transformer_config first_stage_config cond_stage_config permuter_config ckpt_path".split()),
    "ignore_keys": [],
    "first_stage_key": "image",
    "cond_stage_key": "depth",
    "downsample_cond_size": -1,
    "pkeep": 1.0,
    "sos_token": 0,
    "unconditional": False,
}
_GPT = {
    **dict.fromkeys(("vocab_size", "block_size")),
    "n_layer": 12,
    "n_head": 8,
    "n_embd": 256,
    "embd_pdrop": 0.0,
    "resid_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "n_unmasked": 0,
}
_UNCONDITIONAL = "__is_unconditional__"


def convert(source: Any, config: Any, raw: bool) -> Conversion:
    """Both stages' checkpoint as a latent model; `raw` changes nothing, since taming keeps no averages.

    Raises:
        ValueError: If the configuration holds what modkit has no counterpart for, or keys do not fit it.
    """
    tensors, others = lightning(source)
    name, params = target(model_of(config), "model")
    if name != "Net2NetTransformer":
        raise ValueError(f"model.target is expected to be Net2NetTransformer, got {name!r}")
    given = Arguments("model.params", params, _MODEL)
    if (permuter := given.values["permuter_config"]) is not None:
        kind, _ = target(permuter, "model.params.permuter_config")
        if kind != "Identity":
            raise ValueError(f"model.params.permuter_config is expected to be Identity or absent, got {kind!r}")
    stage = Quantized(
        given.values["first_stage_config"],
        "model.params.first_stage_config",
        theirs="first_stage_model.",
        ours="autoencoder.",
    )
    second = _Second(given, stage)
    first = {key: value for key, value in tensors.items() if key.startswith("first_stage_model.")}
    rest = {key: value for key, value in tensors.items() if key not in first}
    weights, left = stage.weights(first)
    prior, also = second.weights(rest)
    x: dict[str, Any] = {"shape": list(stage.shape), "range": [-1.0, 1.0]}
    if second.classes:
        x["fields"] = {"labels": {"shape": [], "classes": second.classes}}
    model = {"use": "latent", "autoencoder": stage.spec, "prior": second.spec, "at": "codes"}
    return Conversion({"x": x, "model": model}, {**weights, **prior}, (*others, *left, *also))


class _Second:
    """The transformer, as modkit has it.

    Args:
        given: The whole model's arguments.
        stage: The first stage.

    Raises:
        ValueError: If they hold what modkit has no counterpart for.
    """

    def __init__(self, given: Arguments, stage: Quantized) -> None:
        where = "model.params.transformer_config"
        name, params = target(given.values["transformer_config"], where)
        if name != "GPT":
            raise ValueError(f"{where}.target is expected to be GPT, got {name!r}")
        gpt = Arguments(f"{where}.params", params, _GPT)
        gpt.only("n_unmasked", [0], why="modkit's transformer masks every token")
        self.width, self.depth, self.heads = (gpt.integer(key) for key in ("n_embd", "n_layer", "n_head"))
        self.vocabulary, self.num = gpt.integer("vocab_size"), prod(stage.latent[1:])
        if self.vocabulary != stage.num_codes:
            raise gpt.error("vocab_size", f"the first stage's n_embed, {stage.num_codes}")
        if gpt.integer("block_size") < self.num:
            raise gpt.error("block_size", f"at least the number of codes, {self.num}")
        self.dropout = gpt.number("resid_pdrop")
        self.classes, self.start = _condition(given)
        if max(self.classes, self.start + 1) > self.vocabulary:
            raise gpt.error(
                "vocab_size", f"at least {max(self.classes, self.start + 1)}, for the token before the codes"
            )

    @property
    def spec(self) -> dict[str, Any]:
        """The prior's node."""
        network = {
            "use": "transformer",
            "width": self.width,
            "depth": self.depth,
            "heads": self.heads,
            "dropout": self.dropout,
            "positions": "table",
        }
        conditioner = {"use": "checkpoints/class-id", "drop": 0.0} if self.classes else "none"
        return {"use": "autoregressive", "network": network, "conditioner": conditioner}

    def weights(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """The prior's weights, and the keys that were set aside.

        Raises:
            ValueError: If keys are unknown.
        """
        weights, left = renamed(tensors, self._rules())
        codes = weights.get("prior.network.codes.weight")
        if codes is not None and codes.shape == (self.vocabulary, self.width):
            start = codes[self.start : self.start + 1].clone()
            weights["prior.network.start"] = torch.zeros_like(start) if self.classes else start
            if self.classes:
                embedded = torch.cat([codes[: self.classes], torch.zeros_like(start)])
                weights["prior.network.embedding.labels.weight"] = embedded
                weights["prior.conditioner.counted.frequencies"] = torch.full((self.classes,), 1 / self.classes)
        return weights, left

    def _rules(self) -> list[Rule]:
        theirs, ours = r"transformer\.", "prior.network."
        rules = [
            Rule(rf"{theirs}tok_emb\.weight", f"{ours}codes.weight"),
            Rule(rf"{theirs}pos_emb", f"{ours}positions.0", change=lambda table: table[0, : self.num]),
            Rule(rf"{theirs}head\.weight", f"{ours}out.weight"),
            *pair("transformer.ln_f", f"{ours}norm"),
            aside(rf"{theirs}blocks\.\d+\.attn\.mask"),
        ]
        for block in range(self.depth):
            at, to = f"transformer.blocks.{block}", f"{ours}blocks.{block}"
            names = {"ln1": "norm_1", "ln2": "norm_2", "attn.proj": "out", "mlp.0": "mlp.0", "mlp.2": "mlp.2"}
            for name, new in names.items():
                rules += pair(f"{at}.{name}", f"{to}.{new}")
            for part, name in enumerate(("query", "key", "value")):
                rules += matrix(f"{at}.attn.{name}", f"{to}.query_key_value", part=part)
        return rules


def _condition(given: Arguments) -> tuple[int, int]:
    """The number of classes, 0 for none, and the token before the codes where there are none."""
    node = given.values["cond_stage_config"]
    if given.flag("unconditional") or node == _UNCONDITIONAL:
        return 0, given.integer("sos_token", low=0)
    if node == "__is_first_stage__":
        raise given.error(
            "cond_stage_config", f"Labelator or {_UNCONDITIONAL} (modkit has no other token before codes)"
        )
    where = "model.params.cond_stage_config"
    name, params = target(node, where)
    if name == "SOSProvider":
        return 0, Arguments(f"{where}.params", params, {"sos_token": None, "quantize_interface": True}).integer(
            "sos_token", low=0
        )
    if name != "Labelator":
        expected = f"Labelator, SOSProvider or {_UNCONDITIONAL}"
        raise ValueError(f"{where}.target is expected to be {expected} (a map before the codes), got {name!r}")
    return Arguments(f"{where}.params", params, {"n_classes": None, "quantize_interface": True}).integer("n_classes"), 0
