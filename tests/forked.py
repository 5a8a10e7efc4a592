"""What the server of `tests/forks.py` imports: all that training, checks and measurements import, at once or late."""

import gc
import os

import PIL.Image
import torch
import torch._dynamo
import torch.distributed

import modkit.cli.app
import modkit.comparison
import modkit.evaluation.evaluate_run
import modkit.metrics.memory
import modkit.sweeps.sweep
import modkit.training.statistics
from modkit import check, use
from tests.passes import FEW
from tests.play import spec
from tests.sampling import sample_here

torch.set_num_threads(1)
modkit.metrics.memory._measure_in_child = sample_here  # as in `conftest.py`
modkit.training.statistics.PASSES = FEW
check(spec(use("diffusion", network="mlp", sampler=use("ddim", steps=2))))
PIL.Image.init()
os.fsync = lambda file: None  # nobody cuts the power
gc.freeze()  # nothing of the server's is copied to count its references
