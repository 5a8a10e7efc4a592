"""Trains the shipped weights of `classifier:digits` again: `python -m modkit.features.digits_classifier [FILE]`.

They are trained on the training split of scikit-learn's digits at size 16 with seed 0. Other processors or versions of
torch may round differently, so the bits, and with them the hash, may differ; only the shipped file gives scores that
are called `classifier:digits`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from modkit.data.digits import Digits
from modkit.data.loader import read_in_order
from modkit.features.classifier import DIGITS, Classifier
from modkit.rng import Rng
from modkit.runs.files import hash_data

__all__ = ["main", "train"]


def train(*, epochs: int = 30) -> Classifier:
    """Trains the classifier as the shipped one was; fewer `epochs` are faster."""
    data = Digits(size=16)
    classifier = Classifier(data.x, name="digits", epochs=epochs)
    classifier.prepare(read_in_order(data, "train", 256, Rng(0)))
    return classifier


def measure_accuracy(classifier: Classifier, data: Digits, split: str) -> float:
    """Measures the share of a split that is classified correctly."""
    right = 0
    with torch.no_grad():
        for batch in read_in_order(data, split, 256, Rng(0)):
            logits = classifier(batch.tensor).logits
            right += int((logits.argmax(1) == batch.fields["labels"]).sum())
    return right / data.splits[split]


def main() -> None:
    """Trains, writes the file and prints its hash and accuracy."""
    parser = argparse.ArgumentParser(description="Trains the classifier of classifier:digits.")
    parser.add_argument("file", nargs="?", default="digits.safetensors", type=Path)
    path = parser.parse_args().file
    classifier = train()
    classifier.save(str(path))
    found, shipped = (hash_data(file.read_bytes()) for file in (path, DIGITS))
    data = Digits(size=16)
    train_accuracy, test_accuracy = (measure_accuracy(classifier, data, split) for split in ("train", "test"))
    print(f"{path}: {train_accuracy:.4f} of train, {test_accuracy:.4f} of test")
    print(f"SHA-256 {found}, {'as shipped' if found == shipped else f'shipped is {shipped}'}")


if __name__ == "__main__":
    main()
