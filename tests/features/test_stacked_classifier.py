import pytest
import torch

from modkit.data.digits import Digits
from modkit.data.stacked import Stacked
from modkit.features.classifier import Classifier
from modkit.features.stacked_classifier import StackedClassifier
from modkit.rng import Rng
from modkit.types import TensorType
from tests.refusals import refusals

X = TensorType((3, 8, 8), range=(-1.0, 1.0))
ONE = TensorType((1, 8, 8), range=(-1.0, 1.0))


def test_features_are_those_of_each_sample_and_logits_the_joint_probabilities():
    x = Rng(0).uniform("x", torch.empty(4, 3, 8, 8)) * 2 - 1
    features, single = StackedClassifier(X, weights="digits"), Classifier(ONE, weights="digits")
    made, each = features(x), [single(x[:, one : one + 1]) for one in range(3)]
    torch.testing.assert_close(made.vector, torch.cat([one.vector for one in each], 1))
    torch.testing.assert_close(made.maps[1], torch.cat([one.maps[1] for one in each], 1))
    p = [one.logits.softmax(1) for one in each]
    joint = torch.einsum("bi,bj,bk->bijk", *p).flatten(1)
    torch.testing.assert_close(made.logits.softmax(1), joint)
    assert features.label == "stacked-classifier:digits"


@pytest.mark.wide
def test_it_learns_from_stacks_and_is_restored_from_its_state():
    data = Stacked(data=lambda: Digits(size=8), num=700, num_test=100, depth=2)
    features = StackedClassifier(data.x, classes=100, depth=2, epochs=6, size=8)
    with pytest.raises(ValueError, match="before it is trained"):
        features.key()
    features.prepare([data.read("train", range(700), Rng(0))])
    batch = data.read("test", range(100), Rng(0))
    assert (features(batch.tensor).logits.argmax(1) == batch.fields["labels"]).float().mean() > 0.6
    again = StackedClassifier(data.x, classes=100, depth=2, epochs=6, size=8)
    again.load_state_dict(features.state_dict())
    assert again.key() == features.key() and torch.equal(again(batch.tensor).logits, features(batch.tensor).logits)


test_refuses = refusals(
    (lambda: StackedClassifier(ONE), "expects k.depth classes and channels by depth, got 1×8×8"),
    (lambda: StackedClassifier(X, classes=999), "999 classes and depth 3"),
)
