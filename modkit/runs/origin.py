"""Where installed distributions came from (PEP 610). This module imports no torch."""

from __future__ import annotations

import json
from importlib import metadata
from typing import Any

__all__ = ["find_source", "read_direct_url"]


def read_direct_url(distribution: str) -> dict[str, Any]:
    """Reads where a distribution was installed from: empty if from an index, an empty `url` if not installed."""
    try:
        found: Any = json.loads(metadata.distribution(distribution).read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:
        return {"url": ""}
    except ValueError:
        return {}
    infos = [found.get(key, {}) for key in ("vcs_info", "dir_info")] if isinstance(found, dict) else [None]
    return found if all(isinstance(info, dict) for info in infos) else {}


def find_source(distribution: str) -> str:
    """Finds where a distribution was installed from: `index`, or an address, with the commit if there is one."""
    found = read_direct_url(distribution)
    commit, editable = found.get("vcs_info", {}).get("commit_id"), found.get("dir_info", {}).get("editable")
    return f"{'editable ' * bool(editable)}{found.get('url', 'index')}{f'@{commit}' if commit else ''}"
