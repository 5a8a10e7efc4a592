import ast

import pytest

from modkit.cli.declaration import declare_part
from tests.refusals import refusals

NEW = ("logger", "table", "acme.logger:Table", 'Losses, as "values"')
CALL = 'Part("logger", "table", "acme.logger:Table", "Losses, as \\"values\\"")'
HEAD = "from modkit import Part, hookimpl\n\n\n@hookimpl\ndef modkit_parts():\n"
OLD = 'Part("sampler", "é", "acme:E", "e")'
BLOCK = """\
        Part(
            "logger",
            "table",
            "acme.logger:Table",
            "Losses, as \\"values\\"",
        ),
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("    return []\n", f"    return [{CALL}]\n"),
        (f"    return [{OLD}]\n", f"    return [{OLD}, {CALL}]\n"),
        (f"    return [{OLD},]  # all\n", f"    return [{OLD}, {CALL}]  # all\n"),
        (f"    return [{OLD}, {OLD}]", f"    return [{OLD}, {OLD}, {CALL}]"),
        ("    return [\n    ]\n", f"    return [\n{BLOCK}    ]\n"),
        (f"    return [\n        {OLD}\n    ]\n", f"    return [\n        {OLD},\n{BLOCK}    ]\n"),
        (
            f"    return [\n        {OLD},  # mine, too\n        # more\n    ]\n",
            f"    return [\n        {OLD},  # mine, too\n        # more\n{BLOCK}    ]\n",
        ),
        (
            f"    return [\n        {OLD}  # mine, too\n    ]\n",
            f"    return [\n        {OLD},  # mine, too\n{BLOCK}    ]\n",
        ),
    ],
)
def test_a_part_is_written_at_the_end_of_the_list(before, after):
    changed = declare_part(HEAD + before, NEW)
    assert changed == HEAD + after
    (listed,) = [node.value for node in ast.walk(ast.parse(changed)) if isinstance(node, ast.Return)]
    assert [part.func.id for part in listed.elts] == ["Part"] * len(listed.elts)
    assert tuple(one.value for one in listed.elts[-1].args) == NEW


@pytest.mark.parametrize(
    ("line", "name"),
    [("from modkit import Part as P", "P"), ("import modkit", "modkit.Part"), ("import modkit as m", "m.Part")],
)
def test_part_is_called_by_the_name_that_the_module_has_for_it(line, name):
    changed = declare_part(f"{line}\n\ndef modkit_parts():\n    return []\n", NEW)
    assert f'return [{name}("logger"' in changed


test_what_cannot_be_changed_is_told_with_what_to_add = refusals(
    (HEAD + "    return [part for part in PARTS]\n", "expected a function modkit_parts that returns a list; add this"),
    (HEAD + "    return PARTS\n", "expected a function modkit_parts that returns a list; add this"),
    (HEAD + "    if x:\n        return []\n    return []\n", "expected a function modkit_parts that returns a list"),
    ("from modkit import Part\n", "expected a function modkit_parts that returns a list"),
    ("def modkit_parts():\n    return []\n", "expected an import of Part from modkit; add this .*by hand: Part"),
    (HEAD + '    return [Part("logger", "table", "x:Y", "")]\n', "it declares the logger table already"),
    ("def modkit_parts(:\n", "it is not valid Python"),
    of=lambda source: declare_part(source, NEW),
)
