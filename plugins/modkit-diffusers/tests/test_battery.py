"""The conformance battery over this plug-in's parts."""

import pytest

from modkit.testing import parametrize_parts

_CODER = {"block_out_channels": [8, 8], "norm_num_groups": 4}
_UNET = {"block_out_channels": [8], "layers_per_block": 1, "norm_num_groups": 4}
_SAMPLERS = "ddpm ddim euler euler-ancestral heun lms pndm dpm-solver++ unipc flow-euler"
PARAMS = {
    **{
        f"{kind} diffusers/{name}": _CODER for kind in ("encoder", "decoder") for name in ("autoencoder-kl", "vq-model")
    },
    "model diffusers/autoencoder-kl": _CODER,
    "model diffusers/vq-model": {**_CODER, "num_vq_embeddings": 8},
    "network diffusers/unet-2d": {**_UNET, "mid_block_type": None},
    "network diffusers/unet-2d-condition": {**_UNET, "attention_head_dim": 4},
    "network diffusers/dit": {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8},
    **{f"sampler diffusers/{name}": {"steps": 4} for name in _SAMPLERS.split()},
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' use of numpy
@parametrize_parts("diffusers", params=PARAMS)
def test_part(check):
    check()
