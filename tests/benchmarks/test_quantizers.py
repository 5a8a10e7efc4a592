import importlib.util

import pytest
import torch

from modkit.ops.nearest import find_nearest
from tests.benchmarks import quantizers

SMALL = ["--num", "48", "--codes", "40", "--channels", "8", "--rounds", "2", "--threads", str(torch.get_num_threads())]


def test_every_side_is_timed_in_every_round():
    peer = importlib.util.find_spec("vector_quantize_pytorch")
    seconds = quantizers.measure(48, 40, 8, rounds=3)
    assert list(seconds) == [quantizers.PRODUCT, quantizers.KEPT, quantizers.OURS, *([quantizers.PEER] if peer else [])]
    assert all(len(rounds) == 3 and min(rounds) > 0 for rounds in seconds.values())


def test_ratios_are_taken_round_by_round():
    seconds = {"a": [1.0, 9.0, 2.0], "b": [1.0, 3.0, 4.0]}
    assert quantizers.compared(seconds, "a", "b") == "1.00 x b (0.50 to 3.00)"


def test_a_wrong_search_is_noticed(monkeypatch):
    torch.manual_seed(0)
    vectors, codes = torch.randn(300, 8), torch.randn(40, 8)
    assert quantizers.agreement(vectors, codes) == (0, 0.0)
    second = torch.cdist(vectors, codes).topk(2, largest=False).indices[:, 1]
    monkeypatch.setattr(
        quantizers, "find_nearest", lambda z, codes: torch.where(torch.arange(300) == 7, second, find_nearest(z, codes))
    )
    differing, gap = quantizers.agreement(vectors, codes)
    distances = torch.cdist(vectors[7:8].double(), codes.double())[0].square().sort().values
    assert differing == 1 and gap == pytest.approx(float(distances[1] / distances[0] - 1), rel=1e-6)


def test_the_peak_is_of_what_is_held_at_once():
    quarter = 2**18  # float32 numbers, a MB

    def run():
        for _ in range(3):
            torch.zeros(quarter)
        kept = torch.zeros(quarter)
        return torch.cat([kept, kept])

    assert quantizers.peak(run) == 3 * 2**20


def test_the_search_never_holds_a_tenth_of_the_scores():
    vectors, codes = torch.randn(8192, 4), torch.randn(8190, 4)
    assert quantizers.peak(lambda: find_nearest(vectors, codes)) < 8192 * 8190 * 4 / 10


def test_without_the_peer_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    threads = torch.get_num_threads()
    quantizers.main(SMALL)
    assert torch.get_num_threads() == threads
    printed = capsys.readouterr().out
    assert "vector-quantize-pytorch: not installed, left out" in printed
    assert "search: 0 indices differ from float64's, by at most 0.0e+00" in printed
    assert "MB at its peak" in printed
