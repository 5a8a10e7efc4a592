"""Ops with a Triton kernel: each computes what its reference does, on CUDA in fewer launches and less memory traffic.

For an op `foo`, `modkit/ops/foo.py` holds `foo_reference`, which reads like the equation, and `foo`, which calls it or
the kernel; `modkit/ops/foo_triton.py` holds the kernel, and is imported when it first runs. `modkit/ops/kernel.py`
decides which of the two runs.
"""
