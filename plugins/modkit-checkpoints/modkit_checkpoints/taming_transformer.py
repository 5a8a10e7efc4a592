r"""taming-transformers' second stage: Net2NetTransformer as `latent` of a first stage and `autoregressive`.

    [c, z_0 ... z_(n-2)] + p  ->  logits 0 ... n - 1

c is one token before the codes, from the codes' own embedding: a fixed one (unconditional), or the class (`Labelator`).
Ours begins with a start token, which is that fixed one, or zero plus an embedding of the class; no class is zero. Maps
before the codes (segmentations, depth, coordinates, boxes) have no counterpart.

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
from modkit_checkpoints.compvis_config import find_model, read_lightning, read_target
from modkit_checkpoints.conversion import Conversion, Rule, aside, matrices, pairs, rename
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
_BLOCK = {"ln1": "norm_1", "ln2": "norm_2", "attn.proj": "out", "mlp.0": "mlp.0", "mlp.2": "mlp.2"}


def convert(source: Any, config: Any, raw: bool) -> Conversion:
    """Converts both stages' checkpoint to a latent model; `raw` changes nothing, since taming keeps no averages.

    Raises:
        ValueError: If the configuration uses something for which modkit has no counterpart, or keys do not fit it.
    """
    tensors, others = read_lightning(source)
    name, params = read_target(find_model(config), "model")
    if name != "Net2NetTransformer":
        raise ValueError(f"model.target is expected to be Net2NetTransformer, got {name!r}")
    given = Arguments("model.params", params, _MODEL)
    if (permuter := given.values["permuter_config"]) is not None:
        kind, _ = read_target(permuter, "model.params.permuter_config")
        if kind != "Identity":
            raise ValueError(f"model.params.permuter_config is expected to be Identity or absent, got {kind!r}")
    where, theirs = "model.params.first_stage_config", "first_stage_model."
    stage = Quantized(given.values["first_stage_config"], where, theirs=theirs, ours="autoencoder.")
    second = _Second(given, stage)
    first = {key: value for key, value in tensors.items() if key.startswith(theirs)}
    rest = {key: value for key, value in tensors.items() if key not in first}
    weights, left = stage.convert(first)
    prior, also = second.convert(rest)
    x: dict[str, Any] = {"shape": list(stage.shape), "range": [-1.0, 1.0]}
    if second.classes:
        x["fields"] = {"labels": {"shape": [], "classes": second.classes}}
    model = {"use": "latent", "autoencoder": stage.spec, "prior": second.spec, "at": "codes"}
    return Conversion({"x": x, "model": model}, {**weights, **prior}, (*others, *left, *also))


class _Second:
    """The transformer as modkit's `autoregressive`, from the whole model's arguments and the first stage."""

    def __init__(self, given: Arguments, stage: Quantized) -> None:
        where = "model.params.transformer_config"
        name, params = read_target(given.values["transformer_config"], where)
        if name != "GPT":
            raise ValueError(f"{where}.target is expected to be GPT, got {name!r}")
        gpt = Arguments(f"{where}.params", params, _GPT)
        gpt.only("n_unmasked", [0], why="modkit's transformer masks every token")
        self.width, self.depth, heads = (gpt.integer(key) for key in ("n_embd", "n_layer", "n_head"))
        self.vocabulary, self.num = gpt.integer("vocab_size"), prod(stage.latent[1:])
        if self.vocabulary != stage.num_codes:
            raise gpt.error("vocab_size", f"the first stage's n_embed, {stage.num_codes}")
        if gpt.integer("block_size") < self.num:
            raise gpt.error("block_size", f"at least the number of codes, {self.num}")
        self.classes, self.start = _read_condition(given)
        if (least := max(self.classes, self.start + 1)) > self.vocabulary:
            raise gpt.error("vocab_size", f"at least {least}, for the token before the codes")
        sizes = {"width": self.width, "depth": self.depth, "heads": heads, "dropout": gpt.number("resid_pdrop")}
        self.spec = {
            "use": "autoregressive",
            "network": {"use": "transformer", **sizes, "positions": "table"},
            "conditioner": {"use": "checkpoints/class-id", "drop": 0.0} if self.classes else "none",
        }

    def convert(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """Returns the prior's weights, and the keys that were set aside."""
        weights, left = rename(tensors, self._rules())
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
            *pairs("transformer.", ours, {"ln_f": "norm"}),
            aside(rf"{theirs}blocks\.\d+\.attn\.mask"),
        ]
        for block in range(self.depth):
            at, to = f"transformer.blocks.{block}.", f"{ours}blocks.{block}."
            rules += pairs(at, to, _BLOCK)
            rules += matrices(f"{at}attn.", to, dict.fromkeys(("query", "key", "value"), "query_key_value"))
        return rules


def _read_condition(given: Arguments) -> tuple[int, int]:
    """Reads the number of classes, or 0, and the token before the codes of a model without any."""
    node = given.values["cond_stage_config"]
    if given.flag("unconditional") or node == _UNCONDITIONAL:
        return 0, given.integer("sos_token", low=0)
    if node == "__is_first_stage__":
        expected = f"Labelator or {_UNCONDITIONAL} (modkit has no other token before codes)"
        raise given.error("cond_stage_config", expected)
    where = "model.params.cond_stage_config"
    name, params = read_target(node, where)
    if name not in ("Labelator", "SOSProvider"):
        expected = f"Labelator, SOSProvider or {_UNCONDITIONAL} (a map before the codes)"
        raise ValueError(f"{where}.target is expected to be {expected}, got {name!r}")
    key = "n_classes" if name == "Labelator" else "sos_token"
    own = Arguments(f"{where}.params", params, {key: None, "quantize_interface": True})
    return (own.integer(key), 0) if name == "Labelator" else (0, own.integer(key, low=0))
