import pytest
import torch

from modkit.decodings.guided import guide
from modkit.diffusion.guidance import ClassifierFree, NoGuidance, Perturbed
from modkit.models import Autoregressive, Masked
from modkit.types import TensorType
from tests.launches import Launches

CODES = torch.tensor([[0, 1, 2, 2], [2, 0, 2, 1]])  # 2 is the mask


def predicting(seed, calls=None, shape=(4, 3, 2)):
    """A table of logits by position and code."""
    table = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

    def predict(codes, i, known=None):
        if calls is not None:
            calls.append(i)
        logits = table[torch.arange(len(table)), codes]
        return logits if i is None else logits[:, i]

    return predict


@pytest.mark.parametrize("i", [None, 0, 3])
@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_logits_move_away_from_those_without_conditions(i, scale):
    cond, null = predicting(0), predicting(1)
    got = guide(ClassifierFree(scale=scale), {"cond": cond, "null": null}, mask=2)(CODES, i)
    want = null(CODES, i) + scale * (cond(CODES, i) - null(CODES, i))
    assert torch.equal(got, want)


def test_the_second_is_asked_only_where_it_counts():
    for guidance, num in ((NoGuidance(), 0), (ClassifierFree(scale=1.0), 0), (ClassifierFree(scale=2.0), 1)):
        cond, null = [], []
        guide(guidance, {"cond": predicting(0, cond), "null": predicting(1, null)}, mask=2)(CODES, 1)
        assert (cond, null) == ([1], [1] * num)


@pytest.mark.parametrize("make", [Autoregressive, Masked])
def test_a_side_that_codes_do_not_have_is_refused(make):
    model = make(TensorType((2, 2), classes=4)).with_parts(guidance=Perturbed)
    with pytest.raises(ValueError, match="guidance expects sides among cond, null, got perturbed"):
        model.sample(1, seed=0)


def test_the_time_is_the_share_of_codes_unknown():
    times = []

    class Watch:
        def __call__(self, sides):
            return lambda x_t, t: times.append((t.dtype, float(t))) or sides(x_t, t, "cond")[0]

    predict = guide(Watch(), {"cond": predicting(0)}, mask=2)
    for i in (0, 1, 3, None):
        predict(CODES, i)
    predict(CODES, None, 1)  # as the decoding says, not as counted
    assert times == [(torch.float64, share) for share in (1.0, 0.75, 0.25, 0.5, 0.75)]


def test_only_where_the_decoding_does_not_say_it_the_share_is_counted_and_read_back():
    def predict(codes, i, known=None):
        return torch.empty(*codes.shape, 3, device="meta")

    guided, codes = guide(ClassifierFree(), {"cond": predict, "null": predict}, mask=2), CODES.to("meta")
    with Launches():
        guided(codes, None, 1)
    with Launches(), pytest.raises(AssertionError, match="expected a step that waits for nothing"):
        guided(codes, None)
