"""The groups of the site's navigation, from `mkdocs.yml`; generated pages list their entries in the same groups."""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml import YAML

__all__ = ["FOLDER", "read_groups"]

FOLDER = Path(__file__).parent


def read_groups(section: str) -> dict[str, list[str]]:
    """Reads the titles of the pages of a section, by group."""
    entries = next(one[section] for one in YAML(typ="safe").load(FOLDER.parent / "mkdocs.yml")["nav"] if section in one)
    groups = [one for one in entries if isinstance(one, dict)]
    return {title: [name for page in pages for name in page] for one in groups for title, pages in one.items()}
