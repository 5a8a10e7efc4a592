from types import SimpleNamespace

import pytest
import torch

from modkit.decodings import MaskGIT, Raster
from modkit.decodings.code_maps import draw_map, explain_refusal, make_decoding
from modkit.decodings.guided import guide
from modkit.diffusion.guidance import ClassifierFree
from modkit.kinds import Unfit
from modkit.rng import Rng
from modkit.types import TensorType
from tests.decodings.test_guided import predicting

CODES = TensorType((2, 3), classes=5)


def slot(part):
    """A slot that holds a decoding."""

    class Held(SimpleNamespace):
        def __call__(self, codes):
            return part(codes)

    return Held(where=f"model.sampler ({part.__name__.lower()})")


def test_only_one_map_of_codes_is_one():
    assert explain_refusal("Owner", CODES) is None
    assert explain_refusal("Owner", TensorType((2, 3))) == "Owner expects codes, got 2×3 unbounded"
    assert explain_refusal("Owner", (CODES, CODES)) == "Owner expects one map of codes, got a hierarchy of 2 levels"


def test_a_decoding_goes_as_its_network_reads():
    assert isinstance(make_decoding("Owner", slot(Raster), CODES, causal=True), Raster)
    assert isinstance(make_decoding("Owner", slot(MaskGIT), CODES, causal=False), MaskGIT)
    with pytest.raises(
        Unfit, match=r"Owner expects .* raster order .*, got model.sampler \(maskgit\), which fills in"
    ) as no:
        make_decoding("Owner", slot(MaskGIT), CODES, causal=True)
    assert no.value.slot == "sampler"
    with pytest.raises(Unfit, match=r"Owner expects .* masked codes .*, got model.sampler \(raster\), which decodes"):
        make_decoding("Owner", slot(Raster), CODES, causal=False)


@pytest.mark.parametrize("part", [Raster, MaskGIT])
def test_a_map_is_what_the_decoding_draws_from_guided_logits(part):
    guidance, decoding = ClassifierFree(scale=2.0), part(CODES)
    predicts = {side: predicting(seed, shape=(6, 6, 5)) for seed, side in enumerate(("cond", "null"))}
    got = draw_map(decoding, guidance, predicts, CODES, 4, Rng(0))
    want = decoding(guide(guidance, predicts, mask=5), 4, Rng(0))
    assert torch.equal(got, want.view(4, 2, 3)) and not torch.equal(got[0], got[1])


@pytest.mark.parametrize("part", [Raster, MaskGIT])
def test_a_sample_depends_on_its_row_alone(part):
    decoding, predict = part(CODES), predicting(0, shape=(6, 6, 5))
    parts = [decoding(predict, num, Rng(0).rows(first)) for first, num in ((0, 2), (2, 4), (6, 3))]
    assert torch.equal(torch.cat(parts), decoding(predict, 9, Rng(0)))
