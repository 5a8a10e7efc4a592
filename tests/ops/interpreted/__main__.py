"""Runs all checks of kernels under Triton's interpreter, and prints the failures as JSON, by name.

With `--full`, checks take more values.
"""

import json
import time
import traceback

import torch

from tests.ops.interpreted import list_checks

failures, seconds = {}, {}
for name, check in list_checks().items():
    torch.manual_seed(0)
    begun = time.perf_counter()
    try:
        check()
    except Exception:
        failures[name] = traceback.format_exc()
    seconds[name] = round(time.perf_counter() - begun, 1)
print(json.dumps({"failures": failures, "seconds": seconds}))
