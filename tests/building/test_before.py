"""Runs made before load with one warning of their parts and sample the same.

`before` was made by commit 9941a1e, before modkit had rooms. `before_gan` was made by commit 0fd04fc: a conditional
generator `r3gan` with another filter and a wide embedding, and a critic `resnet` whose attention has a norm.
"""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

import modkit


@pytest.mark.parametrize("name", ["before", "before_gan"])
def test_a_run_made_before_loads_with_one_warning_and_samples_the_same(caplog, name):
    run = Path(__file__).parent / name
    with caplog.at_level(logging.WARNING, "modkit"):
        model = modkit.load(run)
    (told,) = [record for record in caplog.records if record.name == "modkit.building.provenance"]
    assert "was made with other versions of its parts" in told.message
    samples = model.sample(3, seed=0)
    # Equal to the bit on the machine that made it; another's kernels may round elsewhere.
    torch.testing.assert_close(samples, torch.from_numpy(np.load(run / "samples.npy")), rtol=0, atol=1e-6)
