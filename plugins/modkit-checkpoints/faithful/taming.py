r"""taming-transformers' networks beside ours: `python -m faithful.taming --peer PATH`, PATH a checkout of theirs.

Their models are built whole, perturbed, and their state dicts converted as `modkit import` does. What their modules
import and these networks do not need (Lightning, the perceptual loss's weights) is stood in for.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import types
from pathlib import Path
from typing import Any

import torch
from modkit_checkpoints.taming_transformer import convert as convert_transformer
from modkit_checkpoints.taming_vqgan import convert as convert_vqgan
from torch import nn

from faithful.measure import Figure, compare, generator, perturbed, table
from faithful.peer import commit
from modkit import Cond, Spec, build

_NETS: dict[str, dict[str, Any]] = {
    "attention at the lowest level": {
        "ch_mult": [1, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [8],
        "resolution": 16,
    },
    "attention in the middle alone, no convolution resamples, gray": {
        "ch_mult": [1, 1, 2],
        "num_res_blocks": 2,
        "attn_resolutions": [],
        "resolution": 32,
        "resamp_with_conv": False,
        "in_channels": 1,
        "out_ch": 1,
    },
    "attention at every level": {
        "ch_mult": [1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [16, 8],
        "resolution": 16,
        "z_channels": 32,
    },
}
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
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", type=Path, required=True)
    peer = parser.parse_args().peer
    torch.set_num_threads(1)
    _stand_in(peer)
    with torch.no_grad():
        figures = [figure for name, net in _NETS.items() for figure in _first_stage(name, net)]
        figures += [figure for name, critic in _CRITICS.items() for figure in _critic(name, critic)]
        figures += [_second_stage(name, size) for name in _GPTS for size in (16, 24)]
    print(f"\ntaming-transformers {commit(peer)}\n\n{table(figures)}")


def _first_stage(name: str, net: dict[str, Any]) -> list[Figure]:
    config = _vq(net)
    peer = perturbed(_made(config), 0)
    ours = _ours(convert_vqgan(peer.state_dict(), config, False))
    figures = []
    for factor in (1.0, 1.5):
        side = int(net["resolution"] * factor)
        x = torch.randn(3, net.get("in_channels", 3), side, side, generator=generator(1))
        h = peer.quant_conv(peer.encoder(x))
        quantized, _, (_, _, indices) = peer.quantize(h)
        encode = nn.ModuleList([ours.encoder, ours.bottleneck.project])
        size = f"{x.shape[1]}×{side}×{side}"
        figures.append(
            compare("encoder", name, size, h, lambda x=x: ours.bottleneck.to_continuous(ours.encoder(x)), encode)
        )
        assert torch.equal(ours.bottleneck.encode(h).flatten(), indices.flatten())
        run = lambda h=h: ours.bottleneck.embed(ours.bottleneck.encode(h))  # noqa: E731
        book = ours.bottleneck.codebook
        figures.append(compare("quantizer", name, f"{h.shape[1]}×{h.shape[2]}×{h.shape[3]}", quantized, run, book))
        decoded = peer.decode(quantized)
        figures.append(compare("decoder", name, size, decoded, lambda z=quantized: ours.decoder(z), ours.decoder))
    return figures


def _critic(name: str, options: dict[str, Any]) -> list[Figure]:
    channels = options.get("disc_in_channels", 3)
    net = {"ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [], "resolution": 32}
    config = _vq({**net, "in_channels": channels, "out_ch": channels}, options)
    peer = perturbed(_made(config), 1)
    ours = _ours(convert_vqgan(peer.state_dict(), config, False)).critic
    figures = []
    for side in (32, 48):
        x = torch.randn(3, channels, side, side, generator=generator(2))
        size = f"{channels}×{side}×{side}"
        run = lambda x=x: ours(x, Cond())  # noqa: E731
        figures.append(compare("patch discriminator", name, size, peer.loss.discriminator(x), run, ours))
    return figures


def _second_stage(name: str, resolution: int) -> Figure:
    options, condition = _GPTS[name]
    side = resolution // 2
    net = {"ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [], "resolution": resolution}
    first = _vq(net)["model"]
    gpt = {"vocab_size": 24, **options}
    gpt["block_size"] = side**2 + options.get("block_size", 0)
    params = {
        "transformer_config": {"target": "taming.modules.transformer.mingpt.GPT", "params": gpt},
        "first_stage_config": first,
        "cond_stage_config": condition,
        "cond_stage_key": "class_label",
        "sos_token": 3,
    }
    config = {"model": {"target": "taming.models.cond_transformer.Net2NetTransformer", "params": params}}
    peer = perturbed(_made(config), 3)
    model = _ours(convert_transformer(peer.state_dict(), config, False))
    x = torch.randn(4, 3, resolution, resolution, generator=generator(4))
    labels = torch.tensor([0, 4, 2, 2])
    theirs, codes = peer(x, x if isinstance(condition, str) else labels)
    network = model.prior.network
    cond = model.prior.conditioner({} if isinstance(condition, str) else {"labels": labels}, None)
    codes = codes.reshape(4, side, side)
    return compare("transformer", name, f"{side}×{side}", theirs, lambda: network(codes, cond), network)


def _vq(net: dict[str, Any], critic: dict[str, Any] | None = None) -> dict[str, Any]:
    common = {"ch": 64, "out_ch": 3, "in_channels": 3, "z_channels": 16, "double_z": False, "dropout": 0.0}
    options = {"disc_in_channels": net.get("in_channels", 3), **(critic or {"disc_ndf": 8, "disc_num_layers": 1})}
    loss = {"target": "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator", "params": options}
    params = {"embed_dim": 6, "n_embed": 24, "ddconfig": {**common, **net}, "lossconfig": loss}
    return {"model": {"target": "taming.models.vqgan.VQModel", "params": params}}


def _ours(conversion: Any) -> Any:
    with torch.enable_grad():  # the check of losses differentiates
        model = build(Spec(**conversion.spec))
    model.load_state_dict(conversion.weights)
    return model.eval()


def _made(config: dict[str, Any]) -> Any:
    return _instantiated(config["model"])


def _instantiated(config: dict[str, Any]) -> Any:
    """What `{target, params}` makes; of a loss, the critic in it alone."""
    module, _, name = config["target"].rpartition(".")
    params = config.get("params", {})
    if ".losses." in config["target"]:
        loss = nn.Module()
        theirs = importlib.import_module("taming.modules.discriminator.model").NLayerDiscriminator
        layers, channels = params.get("disc_num_layers", 3), params.get("disc_in_channels", 3)
        loss.discriminator = theirs(channels, params.get("disc_ndf", 64), layers)
        return loss
    return getattr(importlib.import_module(module), name)(**params)


def _stand_in(peer: Path) -> None:
    """Makes their package importable, without what it imports for training."""
    sys.path.insert(0, str(peer))

    def module(name: str, **names: Any) -> None:
        made = types.ModuleType(name)
        made.__dict__.update(names)
        sys.modules[name] = made

    module("pytorch_lightning", LightningModule=nn.Module)
    module("main", instantiate_from_config=_instantiated)
    module("transformers", top_k_top_p_filtering=None)


if __name__ == "__main__":
    main()
