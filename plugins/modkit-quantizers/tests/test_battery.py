"""The conformance battery over this plug-in's parts."""

from modkit.testing import parametrize_parts

FEW = {"num_codes": 16}


@parametrize_parts(
    "quantizers",
    params={
        "bottleneck quantizers/vq": FEW,
        "bottleneck quantizers/residual-vq": {**FEW, "depth": 2},
        "bottleneck quantizers/grouped-residual-vq": FEW,
        "bottleneck quantizers/lfq": {"bits": 4},
    },
)
def test_part(check):
    check()
