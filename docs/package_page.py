"""README.md as the page of the package, where links and pictures relative to the repository lead nowhere."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE = re.compile(r"(!?\[[^\]]*\]\()(?![a-z]+:|#)([^)]+)")


class PackagePage(MetadataHookInterface):
    """Gives the distribution README.md, whose relative links lead into the repository at the version's tag."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Adds the page to the metadata."""
        source, tag = metadata["urls"]["Source"], f"v{metadata['version']}"

        def write_link(link: re.Match[str]) -> str:
            return f"{link[1]}{source}/{'raw' if link[1].startswith('!') else 'blob'}/{tag}/{link[2]}"

        text = (Path(self.root) / "README.md").read_text("utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": _RELATIVE.sub(write_link, text)}
