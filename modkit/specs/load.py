"""Loading specs from files."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from os import PathLike

from modkit.errors import Position, Problem, SpecError
from modkit.runs.files import open_regular
from modkit.specs.examples import find_spec_file
from modkit.specs.node import describe, freeze, suggest_place
from modkit.specs.overrides import apply
from modkit.specs.spec import Spec
from modkit.specs.yaml import MAX_BYTES

__all__ = ["load_spec"]

_logger = logging.getLogger(__name__)


def load_spec(path: str | PathLike[str], overrides: Sequence[str] = ()) -> Spec:
    """Loads a spec from a YAML file and applies overrides to it.

    An override that swaps a part drops the parameters that the new part does not have, and logs which.

    Args:
        path: The file, or `example:NAME` for one of the examples that modkit brings.
        overrides: `path=value` strings, see `modkit.specs.overrides`.

    Examples:
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp(), "gan.yaml")
        >>> size = file.write_text("{name: gan, data: digits, model: {use: gan, z_dim: 8}}")
        >>> load_spec(file, ["model.z_dim=16"]).model
        use('gan', z_dim=16)

    Raises:
        SpecError: If the file cannot be read, is too large or is not UTF-8, or if the spec or an override is wrong.
    """
    if not isinstance(path, str | PathLike):
        if isinstance(path, Mapping):
            freeze(path)  # to hear of a built object in it
        made = suggest_place(path) or "Spec(**mapping) makes a spec of a mapping"
        raise SpecError(Problem("", f"load_spec expects a file, got {describe(path)}", hint=made))
    file = find_spec_file(str(path))
    try:
        with open_regular(file) as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(Problem("", f"cannot read {file}: {reason}")) from None
    if len(content) > MAX_BYTES:
        raise SpecError(Problem("", f"got more than {MAX_BYTES} bytes, expected a spec", Position(file, 1, 1)))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        position = Position.locate_end(content[: error.start].decode("utf-8", "replace"), file)
        raise SpecError(Problem("", "got bytes that are not UTF-8, expected text", position)) from None
    spec, notices = apply(Spec.from_yaml(text, file), overrides)
    for notice in notices:
        _logger.warning("%s", notice)
    return spec
