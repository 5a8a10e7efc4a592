"""The quality of the main job: does a model trained in a minute make digits like the data's?

    python -m tests.quality [--seeds 0 1 2] [--out DIR]

Trains `examples/ldm.yaml` from each seed, draws 360 samples, and compares them with the 360 test images by the Fréchet
distance and the coverage (k = 5; Naeem et al., 2020, eq. 9) of a classifier's features, beside 360 training images
against the same; and asks the classifier to read the samples of `examples/ldm-class.yaml`, 36 a class. The classifier
is part of the yardstick, so all of it is fixed here: two convolutions and a hidden layer of 64 (the features, over
their root mean square on the training split), Adam, 40 epochs, seed 0.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import modkit
from modkit.data.digits import Digits
from modkit.metrics.frechet import frechet_distance

NUM = 360
EXAMPLES = Path(__file__).parents[1] / "examples"


class Classifier(nn.Module):
    """Digits `b 1 16 16` to features `b 64` and logits `b 10`."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64 * 16, 64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, 10)
        self.scale = 1.0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(features, logits)."""
        features = self.body(x)
        return features / self.scale, self.head(features)


def split(data: Digits, name: str) -> tuple[Tensor, Tensor]:
    """All images and labels of a split."""
    batch = data.read(name, range(data.splits[name]), modkit.Rng(0))
    return batch.tensor, batch.fields["labels"]


def classifier(x: Tensor, labels: Tensor) -> Classifier:
    """The classifier, trained on the training split."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Classifier()
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)
        for _ in range(40):
            for rows in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                F.cross_entropy(net(x[rows])[1], labels[rows]).backward()
                optimizer.step()
    net.eval().requires_grad_(False)
    net.scale = float(net(x)[0].square().mean().sqrt())
    return net


def coverage(real: Tensor, fake: Tensor, k: int = 5) -> float:
    """The share of real points that have a fake one within the distance of their k-th real neighbour."""
    real, fake = real.double(), fake.double()
    radius = torch.cdist(real, real).kthvalue(k + 1, dim=1).values
    return float((torch.cdist(real, fake).min(dim=1).values < radius).double().mean())


def trained(name: str, seed: int, out: Path) -> modkit.Model:
    """The model of an example, trained from a seed; taken up again if it is there."""
    spec = modkit.load_spec(EXAMPLES / f"{name}.yaml", [f"train.seed={seed}"])
    return modkit.load(modkit.train(spec, out / f"{name}-{seed}", resume=True))


def main() -> None:
    """Prints the table; ends with status 1 where a line of it falls short."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=None, help="where the runs are kept")
    arguments = parser.parse_args()
    out = arguments.out or Path(tempfile.mkdtemp())

    data = Digits(size=16)
    train, labels = split(data, "train")
    test, test_labels = split(data, "test")
    net = classifier(train, labels)
    accuracy = (net(test)[1].argmax(1) == test_labels).double().mean()
    print(f"classifier: {accuracy:.1%} of the test images read right")

    real = net(test)[0]
    good = True
    print("seed  FD real  FD model  coverage real  coverage model  labels read as asked")
    for seed in arguments.seeds:
        held = net(train[torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:NUM]])[0]
        drawn = net(trained("ldm", seed, out).sample(NUM, seed=seed))[0]
        asked = torch.arange(10).repeat_interleave(NUM // 10)
        read = net(trained("ldm-class", seed, out).sample(NUM, seed=seed, labels=asked))[1].argmax(1)
        floor, distance = frechet_distance(held, real), frechet_distance(drawn, real)
        ceiling, covered = coverage(real, held), coverage(real, drawn)
        right = float((read == asked).double().mean())
        good &= distance <= 3 * floor and covered >= 0.9 * ceiling and right >= 0.9
        print(f"{seed:4}  {floor:7.3f}  {distance:8.3f}  {ceiling:13.3f}  {covered:14.3f}  {right:20.1%}", flush=True)
    print("reached" if good else "not reached")
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
