"""The declaration of a plug-in's parts: the source of its hook `modkit_parts`, to which a part can be added.

The source is changed only where the list of parts ends, so comments and formatting stay.
"""

from __future__ import annotations

import ast
import json

__all__ = ["declare_part"]


def declare_part(source: str, arguments: tuple[str, ...]) -> str:
    '''Adds a part to the list that a hook `modkit_parts` returns.

    Args:
        source: The module that implements the hook.
        arguments: The part's kind, name, target and summary.

    Returns:
        The changed source.

    Raises:
        ValueError: If the hook does not return a list of parts, the list has the part, or the module does not import
            `Part`; the message says what is to be added by hand.

    Examples:
        >>> source = """from modkit import Part, hookimpl
        ... @hookimpl
        ... def modkit_parts(): return []"""
        >>> print(declare_part(source, ("sampler", "euler", "acme.sampler:Euler", "Euler's method")))
        from modkit import Part, hookimpl
        @hookimpl
        def modkit_parts(): return [Part("sampler", "euler", "acme.sampler:Euler", "Euler's method")]
    '''
    written = [json.dumps(argument, ensure_ascii=False) for argument in arguments]
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"it is not valid Python: {error}") from error
    name = _find_name(tree)
    parts = _find_list(tree)
    if name is None or parts is None:
        lacking = "an import of Part from modkit" if name is None else "a function modkit_parts that returns a list"
        raise ValueError(f"expected {lacking}; add this to its parts by hand: Part({', '.join(written)})")
    if any(_read_arguments(part)[:2] == arguments[:2] for part in parts.elts):
        raise ValueError(f"it declares the {arguments[0]} {arguments[1]} already")
    return _insert(source, parts, name, written)


def _find_name(tree: ast.Module) -> str | None:
    """Finds by which name a module calls `modkit.Part`."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module in ("modkit", "modkit.part"):
            for alias in node.names:
                if alias.name == "Part":
                    return alias.asname or alias.name
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "modkit":
                    return f"{alias.asname or alias.name}.Part"
    return None


def _find_list(tree: ast.Module) -> ast.List | None:
    """Finds the list that the hook returns, if it is written out and the hook returns nothing else."""
    hooks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "modkit_parts"]
    returned = [node.value for hook in hooks for node in ast.walk(hook) if isinstance(node, ast.Return)]
    return returned[0] if len(returned) == 1 and isinstance(returned[0], ast.List) else None


def _read_arguments(part: ast.expr) -> tuple[object, ...]:
    """Reads the positional arguments of a part that are constants."""
    given = part.args if isinstance(part, ast.Call) else []
    return tuple(one.value if isinstance(one, ast.Constant) else None for one in given)


def _insert(source: str, parts: ast.List, name: str, arguments: list[str]) -> str:
    """Writes a call at the end of a list: on lines of its own if the list's bracket closes on a line of its own."""
    lines = source.splitlines(keepends=True)
    stop = _locate(lines, parts.end_lineno, parts.end_col_offset) - 1
    after = _locate(lines, parts.lineno, parts.col_offset) + 1
    if parts.elts:
        after = _locate(lines, parts.elts[-1].end_lineno, parts.elts[-1].end_col_offset)
    comma = "," if parts.elts and not _has_comma(source[after:stop]) else ""
    start = source.rfind("\n", 0, stop) + 1
    margin = source[start:stop]
    if margin.strip():
        space = " " if parts.elts else ""
        return f"{source[:stop]}{comma}{space}{name}({', '.join(arguments)}){source[stop:]}"
    inner = f"{margin}    "
    call = "".join([f"{inner}{name}(\n", *(f"{inner}    {one},\n" for one in arguments), f"{inner}),\n"])
    return f"{source[:after]}{comma}{source[after:start]}{call}{source[start:]}"


def _has_comma(text: str) -> bool:
    """Whether there is a comma outside of comments."""
    return any("," in line.partition("#")[0] for line in text.split("\n"))


def _locate(lines: list[str], line: int | None, column: int | None) -> int:
    """Converts a position of `ast`, whose columns are bytes, to one in the text."""
    assert line is not None and column is not None
    return sum(map(len, lines[: line - 1])) + len(lines[line - 1].encode()[:column].decode())
