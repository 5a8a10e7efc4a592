import hashlib
import sys

from modkit.data.digits import Digits
from modkit.features import digits_classifier
from modkit.features.classifier import DIGITS, Classifier


def test_it_trains_on_the_training_split_and_writes_what_the_classifier_reads(monkeypatch, tmp_path, capsys):
    short = digits_classifier.train(epochs=1)
    data = Digits()
    assert digits_classifier.measure_accuracy(short, data, "test") > 0.6  # one epoch of the thirty
    monkeypatch.setattr(digits_classifier, "train", lambda: short)
    monkeypatch.setattr(sys, "argv", ["digits_classifier", str(tmp_path / "w.safetensors")])
    digits_classifier.main()
    shown = capsys.readouterr().out
    assert hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest() in shown
    assert f"shipped is {hashlib.sha256(DIGITS.read_bytes()).hexdigest()}" in shown
    loaded = Classifier(data.x, weights=str(tmp_path / "w.safetensors"), name="digits")
    assert loaded.label == short.label == f"classifier:digits@{short.key()[:6]}"
