"""Keys and shapes of taming-transformers' checkpoints, as its modules name them, with seeded values."""

import torch


def conv(name, out, into, kernel):
    return {f"{name}.weight": (out, into, kernel, kernel), f"{name}.bias": (out,)}


def pair(name, *sizes):
    return {f"{name}.weight": sizes, f"{name}.bias": sizes[:1]}


def residual(name, into, out):
    keys = {**pair(f"{name}.norm1", into), **conv(f"{name}.conv1", out, into, 3)}
    keys |= {**pair(f"{name}.norm2", out), **conv(f"{name}.conv2", out, out, 3)}
    return keys if into == out else {**keys, **conv(f"{name}.nin_shortcut", out, into, 1)}


def attention(name, wide):
    keys = pair(f"{name}.norm", wide)
    for part in ("q", "k", "v", "proj_out"):
        keys |= conv(f"{name}.{part}", wide, wide, 1)
    return keys


def middle(name, wide):
    return {
        **residual(f"{name}.block_1", wide, wide),
        **attention(f"{name}.attn_1", wide),
        **residual(f"{name}.block_2", wide, wide),
    }


NET = {"ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [8], "resolution": 16}
NET |= {"in_channels": 3, "out_ch": 3, "z_channels": 16, "double_z": False, "dropout": 0.0}
CODES, WIDTH, NDF = 12, 6, 8

ENCODER = {
    **conv("conv_in", 32, 3, 3),
    **residual("down.0.block.0", 32, 32),
    **conv("down.0.downsample.conv", 32, 32, 3),
    **residual("down.1.block.0", 32, 64),
    **attention("down.1.attn.0", 64),
    **middle("mid", 64),
    **pair("norm_out", 64),
    **conv("conv_out", 16, 64, 3),
}
DECODER = {
    **conv("conv_in", 64, 16, 3),
    **middle("mid", 64),
    **residual("up.0.block.0", 64, 32),
    **residual("up.0.block.1", 32, 32),
    **residual("up.1.block.0", 64, 64),
    **residual("up.1.block.1", 64, 64),
    **attention("up.1.attn.0", 64),
    **attention("up.1.attn.1", 64),
    **conv("up.1.upsample.conv", 64, 64, 3),
    **pair("norm_out", 32),
    **conv("conv_out", 3, 32, 3),
}
CRITIC = {
    **conv("main.0", NDF, 3, 4),
    "main.2.weight": (2 * NDF, NDF, 4, 4),
    **pair("main.3", 2 * NDF),
    "main.3.running_mean": (2 * NDF,),
    "main.3.running_var": (2 * NDF,),
    **conv("main.5", 1, 2 * NDF, 4),
}
LPIPS = {"scaling_layer.shift": (1, 3, 1, 1), "net.slice1.0.weight": (4, 3, 3, 3), "lin0.model.1.weight": (1, 4, 1, 1)}


def values(shapes, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return {key: 0.3 * torch.randn(shape, generator=draw) for key, shape in shapes.items()}


def under(prefix, shapes):
    return {f"{prefix}{key}": shape for key, shape in shapes.items()}


def first_stage(quantizer=None):
    """The state dict of a VQModel, without its losses; or of one with another quantizer."""
    return values(
        {
            **under("encoder.", ENCODER),
            **under("decoder.", DECODER),
            **conv("quant_conv", WIDTH, 16, 1),
            **conv("post_quant_conv", 16, WIDTH, 1),
            **(quantizer or {"quantize.embedding.weight": (CODES, WIDTH)}),
        }
    )


def losses():
    """Those of the losses: a critic, and the perceptual loss's network."""
    state = values({**under("loss.discriminator.", CRITIC), **under("loss.perceptual_loss.", LPIPS)}, 1)
    state["loss.discriminator.main.3.running_var"].abs_()
    state["loss.discriminator.main.3.num_batches_tracked"] = torch.tensor(5)
    return state


def config(target="VQModel", **params):
    loss = {
        "target": "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator",
        "params": {"disc_start": 7, "disc_weight": 0.8, "disc_ndf": NDF, "disc_num_layers": 1, "codebook_weight": 1.0},
    }
    own = {"embed_dim": WIDTH, "n_embed": CODES, "ddconfig": NET, "lossconfig": loss, **params}
    return {"model": {"base_learning_rate": 4.5e-6, "target": f"taming.models.vqgan.{target}", "params": own}}


GPT = {"vocab_size": CODES, "block_size": 64, "n_layer": 2, "n_head": 2, "n_embd": 8}


def gpt(block_size=64, width=8, layers=2):
    shapes = {"tok_emb.weight": (CODES, width), "pos_emb": (1, block_size, width)}
    for layer in range(layers):
        at = f"blocks.{layer}"
        shapes |= {**pair(f"{at}.ln1", width), **pair(f"{at}.ln2", width)}
        for name in ("key", "query", "value", "proj"):
            shapes |= pair(f"{at}.attn.{name}", width, width)
        shapes[f"{at}.attn.mask"] = (1, 1, block_size, block_size)
        shapes |= {**pair(f"{at}.mlp.0", 4 * width, width), **pair(f"{at}.mlp.2", width, 4 * width)}
    return values(under("transformer.", {**shapes, **pair("ln_f", width), "head.weight": (CODES, width)}), 2)


def second_config(condition="__is_unconditional__", **options):
    params = {
        "transformer_config": {"target": "taming.modules.transformer.mingpt.GPT", "params": {**GPT, **options}},
        "first_stage_config": {"target": "taming.models.vqgan.VQModel", "params": config()["model"]["params"]},
        "cond_stage_config": condition,
        "sos_token": 3,
        "pkeep": 0.9,
    }
    return {"model": {"target": "taming.models.cond_transformer.Net2NetTransformer", "params": params}}


def second_stage(**options):
    state = {f"first_stage_model.{key}": value for key, value in first_stage().items()}
    return {**state, **gpt(**options)}
