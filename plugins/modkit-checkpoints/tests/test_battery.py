"""The conformance battery over this plug-in's parts."""

from modkit.testing import parametrize_parts

PARAMS = {
    "network checkpoints/adm-unet": {"channels": [32]},
    "network checkpoints/song-unet": {"channels": [8], "blocks": 1},
    "network checkpoints/dhariwal-unet": {"channels": [8], "blocks": 1},
    "sampler checkpoints/ldm-ddim": {"steps": 4},
    "conditioner checkpoints/class-token": {"width": 8},
}


FAILURES = {"conditioner checkpoints/given-tokens: plays": "no reference host's data have tokens that are vectors"}


@parametrize_parts("checkpoints", params=PARAMS, expected_failures=FAILURES)
def test_part(check):
    check()
