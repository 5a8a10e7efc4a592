"""Checks of kernels that run under Triton's interpreter, all in one process of their own: functions `check_…`.

A module for each op. It imports the launcher in its checks, for only there Triton interprets.
"""

import importlib
import pkgutil


def list_checks():
    """All checks by the name of their module and their own."""
    names = [name for _, name, _ in pkgutil.iter_modules(__path__) if name != "__main__"]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return {
        f"{name}.{key}": value
        for name, module in zip(names, modules)
        for key, value in vars(module).items()
        if key.startswith("check_")
    }
