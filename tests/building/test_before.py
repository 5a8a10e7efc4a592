"""A run made before modkit had rooms, by commit 9941a1e: it loads with one warning and samples the same."""

import logging
from pathlib import Path

import numpy as np
import torch

import modkit

BEFORE = Path(__file__).parent / "before"


def test_a_run_made_before_loads_with_one_warning_and_samples_the_same(caplog):
    with caplog.at_level(logging.WARNING, "modkit"):
        model = modkit.load(BEFORE)
    (told,) = [record for record in caplog.records if record.name == "modkit.building.provenance"]
    assert "was made with other versions of its parts" in told.message
    samples = model.sample(3, seed=0)
    # Equal to the bit on the machine that made it; another's kernels may round elsewhere.
    torch.testing.assert_close(samples, torch.from_numpy(np.load(BEFORE / "samples.npy")), rtol=0, atol=1e-6)
