"""Feature extractors: map images to vectors in which distances are meaningful; frozen, and independent of the batch."""

from modkit.features.classifier import Classifier
from modkit.features.inception import Inception
from modkit.features.lpips import LPIPS
from modkit.features.pixels import Pixels
from modkit.features.pretrained import Timm, TorchVision
from modkit.features.random_conv import RandomConv
from modkit.features.stacked_classifier import StackedClassifier

__all__ = ["Classifier", "Inception", "LPIPS", "Pixels", "RandomConv", "StackedClassifier", "Timm", "TorchVision"]
