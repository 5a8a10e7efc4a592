"""Compiled modules: `forward` runs what torch's compiler makes of it, in place, so that keys stay as they are.

The compiler makes another variant of a module's code for each combination of what it depends on: whether gradients are
taken, of which parameters, the mode, types, and sizes. Modules that are built alike, such as the blocks of a
transformer, share their variants. The size of the batch makes no variant (except for batches of one sample). What is
differentiated forward, or transformed by `torch.func`, runs uncompiled: the compiler would give up its code for good.

Shape letters: b batch.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import nn

from modkit.nn.arguments import find_tensors
from modkit.ops.kernel import is_transformed
from modkit.specs.settings import Compilation

__all__ = [
    "VARIANTS",
    "check_backend",
    "compile_modules",
    "is_compiled",
    "is_paused",
    "restore_module",
    "run_uncompiled",
]

VARIANTS = 64
"""Number of variants of its code that a module may have; torch's own limit is eight."""

_logger = logging.getLogger(__name__)


def compile_modules(modules: Iterable[nn.Module], name: str, how: Compilation) -> None:
    """Compiles modules in place, each by itself; they are compiled when they are first called.

    Where the compiler gives up, or a call is differentiated forward, a module runs uncompiled, and a warning names it
    and says why.

    Args:
        modules: The modules.
        name: What warnings call them.
        how: How they are compiled.

    Raises:
        ValueError: If there is no such backend.

    Examples:
        >>> layer = nn.Linear(2, 1)
        >>> compile_modules([layer], "layer", Compilation(backend="eager"))
        >>> layer(torch.zeros(3, 2)).shape, list(layer.state_dict())
        (torch.Size([3, 1]), ['weight', 'bias'])
    """
    import torch._dynamo as dynamo

    check_backend(how.backend)
    dynamo.config.recompile_limit = max(dynamo.config.recompile_limit, VARIANTS)
    shared: dict[Hashable, Callable[..., Any]] = {}
    warn = _make_warning(name)
    for module in modules:
        key = type(module), tuple((name, one.shape) for name, one in module.named_parameters())
        if key not in shared:
            mode = None if how.mode == "default" else how.mode
            dynamic = how.dynamic or False  # None is torch's for sizes that are found to change: one after the other
            shared[key] = torch.compile(_make_call(name), backend=how.backend, mode=mode, dynamic=dynamic)
        module.forward = _Compiled(module.forward, shared[key], warn, marks=how.dynamic is None)


def check_backend(name: str) -> None:
    """Checks that torch has a backend.

    Raises:
        ValueError: If it does not.
    """
    if name == Compilation.backend:  # always there, and the list takes seconds to import
        return
    if name not in torch.compiler.list_backends(exclude_tags=()):
        known = ", ".join(torch.compiler.list_backends())
        raise ValueError(f"compile expects one of torch's backends ({known}, or one for debugging), got {name!r}")


def is_compiled(module: nn.Module) -> bool:
    """Whether a module is compiled itself."""
    return isinstance(vars(module).get("forward"), _Compiled)


def restore_module(module: nn.Module) -> None:
    """Makes a compiled module what it was before; any other stays as it is."""
    if not isinstance(forward := vars(module).get("forward"), _Compiled):
        return
    if getattr(forward.original, "__self__", None) is module:
        del module.forward
    else:
        module.forward = forward.original


@contextmanager
def run_uncompiled() -> Iterator[None]:
    """Runs compiled modules uncompiled within the context, and replays none.

    Compiled code cannot be differentiated twice, and hides its operations from what counts them, as a graph does.
    """
    imported = "torch._dynamo" in sys.modules  # it takes a second to import, and before it nothing is compiled
    with torch.compiler.set_stance("force_eager") if imported else nullcontext():
        _Compiled.pauses += 1
        try:
            yield
        finally:
            _Compiled.pauses -= 1


def is_paused() -> bool:
    """Whether modules run as they are, within `run_uncompiled`."""
    return _Compiled.pauses > 0


class _Compiled:
    """The compiled `forward` of a module."""

    pauses = 0

    def __init__(
        self, original: Callable[..., Any], call: Callable[..., Any], warn: Callable[[], None], *, marks: bool
    ) -> None:
        self.original, self._call, self._warn, self._marks = original, call, warn, marks

    def __call__(self, *given: Any, **named: Any) -> Any:
        if self.pauses:
            return self.original(*given, **named)
        if is_transformed():
            self._warn()
            return self.original(*given, **named)
        if self._marks:
            for tensor in find_tensors((given, tuple(named.values()))):
                if tensor.ndim and len(tensor) > 1:
                    torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return self._call(self.original, *given, **named)


def _make_warning(name: str) -> Callable[[], None]:
    """Makes the warning, logged once, that a network is called where nothing is compiled."""

    @cache
    def warn() -> None:
        _logger.warning(
            "%s runs uncompiled where it is differentiated forward (torch.func.jvp) or transformed by torch.func: "
            "torch's compiler compiles nothing there",
            name,
        )

    return warn


def _make_call(name: str) -> Callable[..., Any]:
    """Makes the function that is compiled; its code is its own, since variants are kept by code."""
    warned: list[str] = []

    def call(forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
        if not torch.compiler.is_compiling() and not warned:  # the compiler has left this call to Python
            warned.append(name)
            _logger.warning(
                "%s runs uncompiled, at least at times: torch's compiler has made %s variants of its code, or is off; "
                "with TORCH_LOGS=recompiles it says what they differ in",
                *(name, VARIANTS),
            )
        return forward(*given, **named)

    code = call.__code__.replace(co_name=name)
    return FunctionType(code, call.__globals__, name, call.__defaults__, call.__closure__)
