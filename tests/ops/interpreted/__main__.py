"""Runs all checks of kernels under Triton's interpreter, and prints the failures as JSON, by name.

With `--full`, checks take more values.
"""

import json
import sys
import time
import traceback

import torch

from modkit.ops.diagnosis import diagnose_ops
from tests.ops.interpreted import list_checks

early = {"triton", "torch._dynamo"} & set(sys.modules)  # each takes a second to import
failures, seconds = {"imports": f"{diagnose_ops.__module__} imports {early}"} if early else {}, {}
for name, check in list_checks().items():
    torch.manual_seed(0)
    begun = time.perf_counter()
    try:
        check()
    except Exception:
        failures[name] = traceback.format_exc()
    seconds[name] = round(time.perf_counter() - begun, 1)
print(json.dumps({"failures": failures, "seconds": seconds}))
