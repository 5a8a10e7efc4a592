import pytest
import torch

from modkit.data.digits import Digits
from modkit.features.classifier import DIGITS, Classifier
from modkit.features.digits_classifier import measure_accuracy
from modkit.rng import Rng
from modkit.types import Batch, TensorType
from tests.data.reading import read_split as whole
from tests.features.checks import check_extractor
from tests.refusals import check_refusal, refusals

GREY = TensorType((1, 8, 8), range=(-1, 1))


def images(num=24, shape=(1, 8, 8)):
    """Images whose class is which half of them is bright."""
    labels = torch.arange(num) % 2
    x = torch.rand(num, *shape, generator=torch.Generator().manual_seed(0)) - 1
    half = shape[1] // 2
    x[labels == 0, :, :half] += 0.9
    x[labels == 1, :, half:] += 0.9
    return Batch(x, {"labels": labels})


def parts(batch, sizes):
    pairs = zip(batch.tensor.split(sizes), batch.fields["labels"].split(sizes))
    return [Batch(x, {"labels": labels}) for x, labels in pairs]


@pytest.mark.parametrize("size", [8, 16, 32])
def test_the_shipped_weights_know_digits_at_any_size(size):
    data = Digits(size=size)
    part = Classifier(data.x, weights="digits")
    assert part.label == "classifier:digits"
    assert measure_accuracy(part, data, "test") >= 0.975  # .978, .978, .983
    with torch.no_grad():
        vector = part(whole(data, "train").tensor).vector
    assert vector.shape == (1437, 64)
    tolerance = 1e-5 if size in (8, 16) else 0.06  # shrinking 32 to 16 blurs: .952
    assert vector.double().square().mean().item() == pytest.approx(1, abs=tolerance)
    assert torch.linalg.matrix_rank(vector.double().T.cov()) == 64


def test_the_shipped_file_is_small_and_its_key_does_not_depend_on_the_range():
    assert DIGITS.stat().st_size < 500_000
    part = Classifier(Digits().x, weights="digits")
    assert sum(parameter.numel() for parameter in part.parameters()) < 100_000
    other = Classifier(TensorType((3, 28, 28), range=(0, 1)), weights="digits")
    assert part.key() == other.key() and len(part.key()) == 64
    x = whole(Digits(), "test").tensor[:4]
    colour = ((x + 1) / 2).expand(-1, 3, -1, -1)
    torch.testing.assert_close(other(colour).vector, part(x).vector, rtol=1e-4, atol=1e-5)


def test_a_changed_shipped_file_is_refused(monkeypatch, tmp_path):
    data = bytearray(DIGITS.read_bytes())
    data[-1] ^= 1
    (tmp_path / "digits.safetensors").write_bytes(data)
    monkeypatch.setattr("modkit.features.classifier.DIGITS", tmp_path / "digits.safetensors")
    check_refusal("Classifier expects .*digits.safetensors to have SHA-256", Classifier, Digits().x, weights="digits")


def test_features_are_divided_by_their_root_mean_square_and_feed_the_head():
    part = Classifier(Digits().x, weights="digits")
    x = whole(Digits(), "test").tensor[:5]
    features = check_extractor(part, x)
    assert [tuple(map_.shape[1:]) for map_ in features.maps] == [(16, 16, 16), (32, 8, 8), (64, 4, 4)]
    torch.testing.assert_close(features.logits, part.net.head(features.vector * part.scale))


def test_training_is_a_function_of_the_data_and_the_seed(tmp_path):
    batch = images()
    first = Classifier(GREY, classes=2, epochs=4, name="halves")
    assert first.label == "classifier:halves@untrained"
    torch.manual_seed(0)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        first.prepare([batch])
    second = Classifier(GREY, classes=2, epochs=4, name="halves")
    torch.manual_seed(1)
    second.prepare(parts(batch, [5, 19]))
    assert first.key() == second.key()
    assert first.label == second.label == f"classifier:halves@{first.key()[:6]}"
    other = Classifier(GREY, classes=2, epochs=4, name="halves", seed=1)
    other.prepare([batch])
    assert other.label != first.label

    assert (first(batch.tensor).logits.argmax(1) == batch.fields["labels"]).all()
    assert first(batch.tensor).vector.double().square().mean().item() == pytest.approx(1, abs=1e-5)
    check_extractor(first, batch.tensor)

    first.prepare(iter(()))  # prepared already: left alone
    assert first.key() == second.key()
    first.save(str(tmp_path / "w.safetensors"))
    loaded = Classifier(GREY, weights=str(tmp_path / "w.safetensors"), classes=2, name="digits")
    assert loaded.key() == first.key()
    assert loaded.label == f"classifier:digits@{first.key()[:6]}"
    reloaded = Classifier(GREY, classes=2, name="halves")
    reloaded.load_state_dict(first.state_dict())
    assert reloaded.label == first.label and torch.equal(reloaded(batch.tensor).vector, first(batch.tensor).vector)


def test_of_many_images_a_fair_sample_trains(monkeypatch):
    monkeypatch.setattr("modkit.features.classifier._LIMIT", 300)
    batch = images(1000)
    batch = Batch(batch.tensor[batch.fields["labels"].argsort()], {"labels": torch.arange(1000) // 500})
    part = Classifier(GREY, classes=2)
    x, labels = part._collect(iter([batch]), Rng(0))
    again = part._collect(iter(parts(batch, 7)), Rng(0))
    assert torch.equal(x, again[0]) and torch.equal(labels, again[1])
    assert len(x) == 300 and labels.float().mean().item() == pytest.approx(0.5, abs=0.08)  # sd .024
    assert torch.equal(labels, labels.sort().values)


def test_colour_stays_colour_where_it_is_trained():
    batch = images(shape=(3, 6, 10))
    part = Classifier(TensorType((3, 6, 10), range=(-1, 1)), classes=2, epochs=1, size=8)
    part.prepare([batch])
    features = part(batch.tensor)
    assert features.maps[0].shape == (24, 16, 8, 8) and part.net.levels[0].weight.shape[1] == 3


def test_meta_builds():
    with torch.device("meta"):
        assert Classifier(GREY)(torch.empty(2, 1, 8, 8)).vector.shape == (2, 64)
        given = Classifier(GREY, weights="digits")
        assert given(torch.empty(2, 1, 8, 8)).logits.shape == (2, 10)
        check_refusal("Classifier has no key before it is trained", Classifier(GREY).key)
    assert given.key() == Classifier(GREY, weights="digits").key()


def train(batches):
    Classifier(GREY).prepare(batches)


NUMBERS = "Classifier expects (classes to be at least 2|size to be at least 4|epochs to be at least 1)"
test_refusals_say_what_was_expected_and_got = refusals(
    (lambda: train([]), "Classifier expects images to train on, got none"),
    (lambda: train([Batch(torch.zeros(2, 1, 8, 8), {})]), r"expects a field `labels` to train on, got fields \[\]"),
    (
        lambda: train([Batch(torch.zeros(1, 1, 8, 8), {"labels": torch.tensor([10])})]),
        r"Classifier .*labels in \[0, 10\), got 10 to 10",
    ),
    (lambda: Classifier(GREY, classes=1), NUMBERS),
    (lambda: Classifier(GREY, size=3), NUMBERS),
    (lambda: Classifier(GREY, epochs=0), NUMBERS),
    (
        lambda: Classifier(GREY, weights="digits", size=32),
        "Classifier expects the weights of its network .*net.penultimate.weight",
    ),
    (lambda: Classifier(GREY, weights="none.safetensors"), "Classifier expects a readable file"),
    (lambda: Classifier(GREY)(torch.zeros(1, 1, 8, 8)), "Classifier expects to be trained"),
    (lambda: Classifier(GREY).key(), "Classifier has no key before it is trained"),
    (lambda: Classifier(GREY).save("nowhere.safetensors"), "Classifier has no key"),
)


def test_the_name_goes_with_the_weights():
    part, other = Classifier(Digits().x, weights="digits"), Classifier(Digits().x, name="digits")
    assert Classifier(Digits().x, weights=str(DIGITS), name="copy").label == "classifier:digits"
    other.load_state_dict(part.state_dict())
    assert other.label == "classifier:digits"
    part.load_state_dict({**part.state_dict(), "scale": torch.tensor(1.0)})
    assert part.label == f"classifier:data@{part.key()[:6]}"
    key = other.key()
    assert other.double().key() == key and other.label == "classifier:digits"
