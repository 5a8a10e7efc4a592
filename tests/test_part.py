from fractions import Fraction

import pytest

from modkit.part import Part
from tests.plugin_factory import make_plugin
from tests.refusals import refusals


def part(target):
    return Part("sampler", "fast", target, "A sampler")


def test_load_returns_the_target_itself_and_follows_a_qualified_name():
    assert part("fractions:Fraction").load() is Fraction
    assert part("fractions:Fraction.from_float").load()(0.5) == Fraction(1, 2)


test_load_refuses_a_wrong_target = refusals(
    ("fractions", "sampler fast expects a target 'module.path:Name', got 'fractions'"),
    ("fractions:", "sampler fast expects a target 'module.path:Name', got 'fractions:'"),
    (":Fraction", "sampler fast expects a target 'module.path:Name', got ':Fraction'"),
    ("", "sampler fast expects a target 'module.path:Name', got ''"),
    ("fractions:Fractoin", "sampler fast: module fractions has no 'Fractoin'"),
    ("string:digits", "expects a callable target, got '"),
    of=lambda target: part(target).load(),
)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_module", r"ModuleNotFoundError: No module named 'no_such_module' \({}.py, line 1\)$"),
        ("import sys\nsys.exit(3)", r"SystemExit: 3 \({}.py, line 2\)$"),
        ("def (", r"SyntaxError: invalid syntax \({}.py, line 1\)$"),
        ("1 / 0", r"ZeroDivisionError: division by zero \({}.py, line 1\)$"),
        ("def __getattr__(name): raise RuntimeError(name)", r"RuntimeError: Name \({}.py, line 1\)$"),
    ],
)
def test_load_names_the_part_and_the_place_whatever_its_module_raises(source, message, tmp_path, monkeypatch):
    module = make_plugin(tmp_path, "acme", source)
    monkeypatch.syspath_prepend(tmp_path)
    start = "^part sampler fast cannot be imported: "
    with pytest.raises(ImportError, match=start + message.format(module)):
        part(f"{module}:Name").load()


def test_load_names_the_part_of_a_missing_module_and_lets_an_interrupt_through(tmp_path, monkeypatch):
    message = "^part sampler fast cannot be imported: ModuleNotFoundError: No module named 'no_such_module'$"
    with pytest.raises(ImportError, match=message):
        part("no_such_module:Name").load()
    module = make_plugin(tmp_path, "acme", "raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        part(f"{module}:Name").load()


def test_part_reads_as_kind_and_name_and_can_be_hashed():
    assert str(part("a:b")) == "sampler fast"
    assert len({part("a:b"), part("a:b"), part("a:c")}) == 2
