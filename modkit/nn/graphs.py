"""Networks replayed from CUDA graphs: one launch in place of hundreds, where one is called again and again.

A network runs as it is when it is first called with inputs of certain shapes and types. Then its kernels are captured,
and from there on replayed, on buffers into which its inputs are copied. All that lies between the networks, such as a
sampler's steps and noise, runs as before: samples stay the same, callbacks see every step, and one graph serves all
times of a grid.

A network that cannot be captured, since it waits for the device, goes on as it is. So does one whose graph depends on
more than its inputs: the first replay on new inputs is compared with what the network gives for them and before.

Graphs belong to the thread that asked for them first. Others that call the network meanwhile run it as it is.
"""

from __future__ import annotations

import gc
import logging
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock, get_ident
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from modkit.nn.arguments import find_tensors, map_tensors
from modkit.nn.compiled import is_paused

__all__ = ["Capture", "CudaCapture", "find_capture", "replay_networks"]

_FIRST = 2  # calls in which libraries choose their kernels and allocate what they work in
_ROUNDING = 0.01  # of the output's norm: kernels may be chosen anew, in bfloat16
_SWITCH = "MODKIT_GRAPHS"
_LOCK = Lock()  # held while networks are taken and given back

_logger = logging.getLogger(__name__)


class Capture(Protocol):
    """Captures what a function asks of a device."""

    def __call__(self, run: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        """Runs the function, and returns what it returns, and a function that computes this anew in the same memory."""
        ...


class CudaCapture:
    """Captures CUDA graphs, which share the memory of what they compute on the way.

    One of them is replayed at a time, and what it returns is read before the next.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        """Captures on a stream of its own; other threads may use the card meanwhile."""
        graph, collects = torch.cuda.CUDAGraph(), gc.isenabled()
        with torch.cuda.device(self._device):  # a stream is one of the current card
            stream = torch.cuda.Stream()
            torch.cuda.synchronize()
            gc.disable()  # what it frees may end a capture
            try:
                with torch.cuda.stream(stream):
                    graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                    try:
                        out = run()
                    except BaseException:
                        with suppress(RuntimeError):  # of a capture that has failed
                            graph.capture_end()
                        raise
                    graph.capture_end()
            finally:
                if collects:
                    gc.enable()
        return out, graph.replay


def find_capture(device: torch.device) -> Capture | None:
    """How networks are captured on a device; None where they are not, or if MODKIT_GRAPHS is `off`.

    Raises:
        ValueError: If MODKIT_GRAPHS is neither `on` nor `off`.
    """
    switch = os.environ.get(_SWITCH, "on")
    if switch not in ("on", "off"):
        raise ValueError(f"{_SWITCH} expects on or off, got {switch!r}")
    return CudaCapture(device) if device.type == "cuda" and switch == "on" else None


@contextmanager
def replay_networks(networks: Iterable[nn.Module], capture: Capture | None) -> Iterator[None]:
    """Replays networks within the context, once they have been called a few times with inputs of the same shapes.

    Their weights must stay where they are. Sharded networks, and calls that take gradients, run as they are; so do
    networks that another call replays already.

    Args:
        networks: The networks.
        capture: How they are captured; None does nothing.
    """
    with _LOCK:
        chosen = [one for one in networks if capture and _is_free(one)]
        before = [vars(network).get("forward") for network in chosen]
        for network in chosen:
            network.forward = _Replayed(network.forward, type(network).__name__, capture)
    try:
        yield
    finally:
        with _LOCK:
            for network, forward in zip(chosen, before, strict=True):
                if forward is None:
                    del network.forward
                else:
                    network.forward = forward


class _Replayed:
    """The `forward` of a network, with a graph for each combination of its inputs' shapes and types."""

    def __init__(self, forward: Callable[..., Any], name: str, capture: Any) -> None:
        self._forward, self._name, self._capture, self._thread = forward, name, capture, get_ident()
        self._calls: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, _Graph | None] = {}
        self._before: dict[Hashable, Any] = {}  # outputs of graphs that were not replayed yet

    def __call__(self, *given: Any, **named: Any) -> Any:
        if get_ident() != self._thread or is_paused() or torch.is_grad_enabled():
            return self._forward(*given, **named)
        key = _describe((given, tuple(sorted(named.items()))))
        self._calls[key] += 1
        if self._calls[key] <= _FIRST:
            return self._forward(*given, **named)
        if key not in self._graphs:
            made = self._graphs[key] = self._make_graph(given, named)
            out = self._forward(*given, **named)
            if made:
                self._before[key] = map_tensors(out, torch.clone)  # the caller may change its own
            return out
        graph = self._graphs[key]
        if graph is None:
            return self._forward(*given, **named)
        out = graph(find_tensors((given, tuple(named.values()))))
        if key not in self._before:
            return out
        expected = self._forward(*given, **named)
        if not _is_near(out, expected, self._before.pop(key)):
            self._warn("its graph computes something else on other inputs")
            self._graphs[key] = None
        return expected

    def _make_graph(self, given: tuple[Any, ...], named: dict[str, Any]) -> _Graph | None:
        try:
            return _Graph(self._forward, given, named, self._capture)
        except RuntimeError as error:  # also of too little memory
            self._warn(str(error).partition("\n")[0])
            return None

    def _warn(self, reason: str) -> None:
        _logger.warning(
            "%s is not replayed from a CUDA graph, it runs as it is: %s (%s=off tries none)",
            *(self._name, reason, _SWITCH),
        )


class _Graph:
    """A captured call."""

    def __init__(
        self, forward: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any], capture: Capture
    ) -> None:
        given, values = map_tensors((given, tuple(named.values())), torch.clone)
        self._buffers = find_tensors((given, values))
        self._out, self._replay = capture(lambda: forward(*given, **dict(zip(named, values))))

    def __call__(self, tensors: list[Tensor]) -> Any:
        """Computes the output for other inputs."""
        torch._foreach_copy_(self._buffers, tensors)
        self._replay()
        return map_tensors(self._out, torch.clone)


def _describe(call: Any) -> Hashable:
    """What a captured call depends on beside the values of its tensors."""
    inputs: Hashable = map_tensors(call, lambda one: (one.shape, one.stride(), one.dtype, one.device))
    return inputs, torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")


def _is_near(got: Any, expected: Any, before: Any) -> bool:
    """Whether what was replayed is what is expected, and not what was given before, which may be as near."""
    triples = zip(*(find_tensors(each) for each in (got, expected, before)), strict=True)
    return all(
        bool((one - two).norm() <= _ROUNDING * two.norm()) and (torch.equal(one, two) or not torch.equal(one, three))
        for one, two, three in triples
    )


def _is_free(network: nn.Module) -> bool:
    """Whether a network can be replayed: it is not sharded, and nobody replays it."""
    taken = isinstance(vars(network).get("forward"), _Replayed)
    return not taken and all(type(parameter.data) is Tensor for parameter in network.parameters())
