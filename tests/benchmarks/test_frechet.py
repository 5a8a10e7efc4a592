import pytest

from tests.benchmarks.frechet import main, ratios


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_the_formulas_agree(decay):
    assert all(difference < 1e-6 for _, difference in ratios(24, repeats=1, decay=decay).values())


def test_it_prints_each_formulas_ratio(capsys):
    main(["--dim", "8", "--repeats", "1"])
    assert len(capsys.readouterr().out.splitlines()) == 7
