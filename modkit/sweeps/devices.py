"""The GPUs of a sweep's jobs: each job sees devices of its own, by the variable CUDA_VISIBLE_DEVICES."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

__all__ = ["list_devices", "share_devices"]


def list_devices() -> list[str]:
    """Lists the GPUs that this process may use, by their names in CUDA_VISIBLE_DEVICES; none without CUDA."""
    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [name.strip() for name in given.split(",")][:count] if given else [str(number) for number in range(count)]


def share_devices(devices: Sequence[str], slot: int, jobs: int) -> dict[str, str]:
    """Returns the variables of a job; if there are fewer devices than jobs, several jobs share one.

    Args:
        devices: The devices of all jobs.
        slot: Number of the job, below `jobs`.
        jobs: Number of parallel jobs.

    Examples:
        >>> [share_devices(["0", "1", "2", "3"], slot, 2) for slot in range(2)]
        [{'CUDA_VISIBLE_DEVICES': '0,1'}, {'CUDA_VISIBLE_DEVICES': '2,3'}]
        >>> share_devices(["0"], 1, 2), share_devices([], 1, 2)
        ({'CUDA_VISIBLE_DEVICES': '0'}, {})
    """
    if not devices:
        return {}
    each = len(devices) // jobs
    own = devices[slot * each : (slot + 1) * each] if each else [devices[slot % len(devices)]]
    return {"CUDA_VISIBLE_DEVICES": ",".join(own)}
