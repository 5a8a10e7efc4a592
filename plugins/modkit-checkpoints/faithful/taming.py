r"""Compares taming-transformers' networks with ours: `python -m faithful.taming --peer PATH`.

Their models are built whole and perturbed, and their state dicts converted as by `modkit import`. Imports of theirs
that these networks do not need (Lightning, the perceptual loss's weights) are replaced.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from modkit_checkpoints.taming_transformer import convert as convert_transformer
from modkit_checkpoints.taming_vqgan import convert as convert_vqgan
from torch import Tensor, nn

from faithful.measure import Figure, compare, draw_normal, format_table, perturb
from faithful.peer import build_ours, find_commit, read_arguments, stand_in
from modkit import Cond

_NETS: dict[str, dict[str, Any]] = {
    "attention at the lowest level": {
        "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [8], "resolution": 16,
    },
    "attention only in the middle, no convolution resamples, gray": {
        "ch_mult": [1, 1, 2], "num_res_blocks": 2, "attn_resolutions": [], "resolution": 32, "resamp_with_conv": False,
        "in_channels": 1, "out_ch": 1,
    },
    "attention at every level": {
        "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [16, 8], "resolution": 16, "z_channels": 32,
    },
}  # fmt: skip
_SMALL = {"ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": []}
_CRITICS: dict[str, dict[str, Any]] = {
    "3 halvings": {"disc_num_layers": 3, "disc_ndf": 8},
    "2 halvings, gray": {"disc_num_layers": 2, "disc_ndf": 16, "disc_in_channels": 1},
    "1 halving": {"disc_num_layers": 1, "disc_ndf": 8},
}
_GPTS: dict[str, tuple[dict[str, Any], Any]] = {
    "unconditional": ({"n_layer": 2, "n_head": 2, "n_embd": 32}, "__is_unconditional__"),
    "of 5 classes": (
        {"n_layer": 3, "n_head": 4, "n_embd": 48},
        {"target": "taming.modules.util.Labelator", "params": {"n_classes": 5}},
    ),
    "unconditional, one head, longer table": (
        {"n_layer": 1, "n_head": 1, "n_embd": 16, "block_size": 100},
        "__is_unconditional__",
    ),
}


def main() -> None:
    """Prints every figure, and the table."""
    (peer,) = read_arguments("peer")
    stand_in("pytorch_lightning", LightningModule=nn.Module)
    stand_in("main", instantiate_from_config=_instantiate)
    stand_in("transformers", top_k_top_p_filtering=None)
    with torch.no_grad():
        figures = [figure for name, net in _NETS.items() for figure in _compare_first_stage(name, net)]
        figures += [figure for name, critic in _CRITICS.items() for figure in _compare_critic(name, critic)]
        figures += [_compare_second_stage(name, size) for name in _GPTS for size in (16, 24)]
    print(f"\ntaming-transformers {find_commit(peer)}\n\n{format_table(figures)}")


def _compare_first_stage(name: str, net: dict[str, Any]) -> Iterator[Figure]:
    config = _vq(net)
    peer = perturb(_instantiate(config["model"]), 0)
    ours: Any = build_ours(convert_vqgan(peer.state_dict(), config, False))
    encode = nn.ModuleList([ours.encoder, ours.bottleneck.project])
    for factor in (1.0, 1.5):
        side = int(net["resolution"] * factor)
        x = draw_normal(3, net.get("in_channels", 3), side, side, seed=1)
        h = peer.quant_conv(peer.encoder(x))
        quantized, _, (_, _, indices) = peer.quantize(h)
        yield compare("encoder", name, x.shape[1:], h, partial(_encode, ours, x), encode)
        assert torch.equal(ours.bottleneck.encode(h).flatten(), indices.flatten())
        run = partial(_quantize, ours.bottleneck, h)
        yield compare("quantizer", name, h.shape[1:], quantized, run, ours.bottleneck.codebook)
        decoded = peer.decode(quantized)
        yield compare("decoder", name, x.shape[1:], decoded, partial(ours.decoder, quantized), ours.decoder)


def _compare_critic(name: str, options: dict[str, Any]) -> Iterator[Figure]:
    channels = options.get("disc_in_channels", 3)
    config = _vq({**_SMALL, "resolution": 32, "in_channels": channels, "out_ch": channels}, options)
    peer = perturb(_instantiate(config["model"]), 1)
    ours: Any = build_ours(convert_vqgan(peer.state_dict(), config, False))
    for side in (32, 48):
        x = draw_normal(3, channels, side, side, seed=2)
        theirs, run = peer.loss.discriminator(x), partial(ours.judges.parts["critic"].network, x, Cond())
        yield compare("patch discriminator", name, x.shape[1:], theirs, run, ours.judges.parts["critic"].network)


def _compare_second_stage(name: str, resolution: int) -> Figure:
    options, condition = _GPTS[name]
    side = resolution // 2
    gpt = {"vocab_size": 24, **options, "block_size": side**2 + options.get("block_size", 0)}
    params = {
        "transformer_config": {"target": "taming.modules.transformer.mingpt.GPT", "params": gpt},
        "first_stage_config": _vq({**_SMALL, "resolution": resolution})["model"],
        "cond_stage_config": condition,
        "cond_stage_key": "class_label",
        "sos_token": 3,
    }
    config = {"model": {"target": "taming.models.cond_transformer.Net2NetTransformer", "params": params}}
    peer = perturb(_instantiate(config["model"]), 3)
    prior: Any = build_ours(convert_transformer(peer.state_dict(), config, False)).prior
    x = draw_normal(4, 3, resolution, resolution, seed=4)
    labels = torch.tensor([0, 4, 2, 2])
    theirs, codes = peer(x, x if isinstance(condition, str) else labels)
    cond = prior.conditioner({} if isinstance(condition, str) else {"labels": labels}, None)
    run = partial(prior.network, codes.reshape(4, side, side), cond)
    return compare("transformer", name, (side, side), theirs, run, prior.network)


def _vq(net: dict[str, Any], critic: dict[str, Any] | None = None) -> dict[str, Any]:
    common = {"ch": 64, "out_ch": 3, "in_channels": 3, "z_channels": 16, "double_z": False, "dropout": 0.0}
    options = {"disc_in_channels": net.get("in_channels", 3), **(critic or {"disc_ndf": 8, "disc_num_layers": 1})}
    loss = {"target": "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator", "params": options}
    params = {"embed_dim": 6, "n_embed": 24, "ddconfig": {**common, **net}, "lossconfig": loss}
    return {"model": {"target": "taming.models.vqgan.VQModel", "params": params}}


def _encode(ours: Any, x: Tensor) -> Tensor:
    return ours.bottleneck.to_continuous(ours.encoder(x))


def _quantize(bottleneck: Any, h: Tensor) -> Tensor:
    return bottleneck.embed(bottleneck.encode(h))


def _instantiate(config: dict[str, Any]) -> Any:
    """Instantiates `{target, params}`; of a loss, only the critic in it."""
    module, _, name = config["target"].rpartition(".")
    params = config.get("params", {})
    if ".losses." in config["target"]:
        loss = nn.Module()
        theirs = importlib.import_module("taming.modules.discriminator.model").NLayerDiscriminator
        layers, channels = params.get("disc_num_layers", 3), params.get("disc_in_channels", 3)
        loss.discriminator = theirs(channels, params.get("disc_ndf", 64), layers)
        return loss
    return getattr(importlib.import_module(module), name)(**params)


if __name__ == "__main__":
    main()
