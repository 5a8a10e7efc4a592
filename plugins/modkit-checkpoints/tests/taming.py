"""Checkpoints of taming-transformers, drawn as its networks are evaluated, and their configurations."""

import torch

from .compvis_networks import Theirs
from .drawn import normal

NET = {"ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [8], "resolution": 16}
NET |= {"in_channels": 3, "out_ch": 3, "z_channels": 16, "double_z": False, "dropout": 0.0}
CODES, WIDTH, NDF = 12, 6, 8
GPT = {"vocab_size": CODES, "block_size": 64, "n_layer": 2, "n_head": 2, "n_embd": 8}
X = normal(2, 3, 16, 16, seed=3, dtype=torch.float32)


def vq(prefix=""):
    """A VQModel's tensors, without its losses, and what it makes of X: features, codes and a reconstruction."""
    theirs = Theirs(prefix)
    h = theirs.encode(X, WIDTH, NET, 1)
    codes, z_q = theirs.nearest(h, CODES)
    return theirs.tensors, h, codes, theirs.decode(z_q, NET)


def judge():
    """The losses' tensors, a critic's and those of the perceptual loss's network, and the critic's logits of X."""
    critic = Theirs("loss.discriminator.", seed=1)
    logits = critic.critic(X, NDF)
    lpips = ("scaling_layer.shift", "net.slice1.0.weight", "lin0.model.1.weight")
    state = {**critic.tensors, **{f"loss.perceptual_loss.{name}": torch.ones(1, 4, 1, 1) for name in lpips}}
    return {**state, "loss.discriminator.main.3.num_batches_tracked": torch.tensor(5)}, logits


def gpt(tokens=((0, 0),), **options):
    """A transformer's tensors, and its logits of tokens."""
    theirs = Theirs("transformer.", seed=2)
    logits = theirs.gpt(torch.as_tensor(tokens), {**GPT, **options})
    return theirs.tensors, logits


def second_stage(**options):
    return {**vq("first_stage_model.")[0], **gpt(**options)[0]}


def config(target="VQModel", **params):
    loss = {
        "target": "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator",
        "params": {"disc_start": 7, "disc_weight": 0.8, "disc_ndf": NDF, "disc_num_layers": 1, "codebook_weight": 1.0},
    }
    own = {"embed_dim": WIDTH, "n_embed": CODES, "ddconfig": NET, "lossconfig": loss, **params}
    return {"model": {"base_learning_rate": 4.5e-6, "target": f"taming.models.vqgan.{target}", "params": own}}


def second_config(condition="__is_unconditional__", permuter=None, **options):
    params = {
        "transformer_config": {"target": "taming.modules.transformer.mingpt.GPT", "params": {**GPT, **options}},
        "first_stage_config": {"target": "taming.models.vqgan.VQModel", "params": config()["model"]["params"]},
        "cond_stage_config": condition,
        "permuter_config": permuter,
        "sos_token": 3,
        "pkeep": 0.9,
    }
    return {"model": {"target": "taming.models.cond_transformer.Net2NetTransformer", "params": params}}
