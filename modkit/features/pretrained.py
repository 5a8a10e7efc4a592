"""Features of pretrained networks of torchvision and timm, with weights from files; nothing is downloaded.

    y = (resize(x mapped to [0, 1], grey repeated) - mean) / std        bilinear or bicubic, antialiased, to a square
    vector: the input of the last linear layer (torchvision), or the pooled output (timm)

With DINOv2 the Fréchet distance is FD-DINOv2; with CLIP the kernel distance is CMMD. Both libraries are optional and
are imported when a part is built.

Shape letters: b batch, c channels, h w spatial, d features, k classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.features.frozen import Frozen
from modkit.features.images import Images, check_image_type, convert_channels, make_column, map_range, resize
from modkit.features.weight_file import Sha256, hash_tensors, import_optional, load_exactly, read_weights
from modkit.types import Features, PositiveInt, checked

__all__ = ["Timm", "TorchVision", "clip", "dinov2"]

TimmWeights = Annotated[str, "File of the model's weights as timm publishes them, safetensors or torch's."]
TimmModel = Annotated[str, "Name of the model in timm."]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
_DINOV2 = "vit_large_patch14_dinov2.lvd142m"
_CLIP = "vit_large_patch14_clip_quickgelu_336.openai"


@checked
class TorchVision(Frozen):
    """An ImageNet classifier of torchvision, with logits and, on request, the maps of named modules.

    Args:
        weights: File of the model's weights, safetensors or torch's.
        model: Name of an architecture in torchvision that ends in a linear layer.
        size: Height and width that images are resized to (bilinear, antialiased).
        maps: Modules whose outputs, `b c h w`, become `maps`, such as `layer1`, `layer2` of a ResNet, or `features.3`,
            `features.8`, `features.15` of `vgg16`.

    Raises:
        ValueError: If `x` is not an image type with a range, torchvision or the model does not exist, the weights
            cannot be read or do not match the model, or a module does not exist.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        x: Images,
        *,
        weights: str,
        model: str = "resnet18",
        size: PositiveInt = 224,
        maps: list[str] = [],  # noqa: B006
        sha256: Sha256 = None,
    ) -> None:
        super().__init__()
        self._range, self.channels, self.size = check_image_type("TorchVision", x), x.shape[0], size
        models = import_optional("TorchVision", "torchvision.models", "torchvision")
        if model not in models.list_models(module=models):
            raise ValueError(f"TorchVision expects a model of torchvision.models, such as resnet18, got {model!r}")
        tensors = read_weights("TorchVision", Path(weights).expanduser(), sha256=sha256)
        self.net = _load("TorchVision", lambda: models.get_model(model, weights=None), tensors, weights)
        self.head = _remove_head(self.net, model)
        self._maps = _check_submodules(self.net, maps)
        self._key = hash_tensors(tensors, "torchvision", 1, model, size, list(maps))
        self.label = f"torchvision:{model}@{self._key[:6]}"
        self.register_buffer("mean", make_column(_MEAN), persistent=False)
        self.register_buffer("std", make_column(_STD), persistent=False)
        self.freeze()

    def _extract(self, x: Tensor) -> Features:
        """Computes the features and logits, and the requested maps."""
        y = _normalize(x, self._range, self.size, "bilinear", self.mean, self.std)
        vector, maps = _run_with_maps(self.net, self._maps, y)
        return Features(vector, maps, self.head(vector))


@checked
class Timm(Frozen):
    """A network of timm, with the normalisation and interpolation of its configuration.

    Args:
        model: Name of the model in timm, with the tag of its configuration (`.lvd142m`).
        size: Height and width that images are resized to; None is the model's input size. timm resamples the position
            embeddings of transformers to fit.
        output: `pooled` gives the features before the classifier; `projected` gives the output of the classifier
            divided by its norm, which for a CLIP model is the image embedding.
        maps: Indices of the blocks or stages whose outputs, `b c h w`, become `maps`.

    Raises:
        ValueError: If `x` is not an image type with a range, timm or the model does not exist, or the weights cannot be
            read or do not match the model.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        x: Images,
        *,
        weights: TimmWeights,
        model: str,
        size: PositiveInt | None = None,
        output: Literal["pooled", "projected"] = "pooled",
        maps: list[int] = [],  # noqa: B006
        sha256: Sha256 = None,
    ) -> None:
        super().__init__()
        self._range, self.channels = check_image_type("Timm", x), x.shape[0]
        timm = import_optional("Timm", "timm", "timm")
        if not timm.is_model(model):
            raise ValueError(f"Timm expects the name of a model in timm, got {model!r}")
        tensors = read_weights("Timm", Path(weights).expanduser(), sha256=sha256)
        self.net = _load("Timm", lambda: timm.create_model(model, pretrained=False), tensors, weights)
        settings: dict[str, Any] = timm.data.resolve_model_data_config(self.net)
        self.native_size = int(settings["input_size"][1])
        self.size = self.native_size if size is None else size
        self._output, self._maps = output, list(maps)
        self._mode: Literal["bilinear", "bicubic"] = "bicubic" if settings["interpolation"] == "bicubic" else "bilinear"
        _adapt(self.net, model, self.size, output, bool(maps))
        self._key = hash_tensors(tensors, "timm", 1, model, self.size, output, self._mode, self._maps)
        self.label = f"timm:{model}@{self._key[:6]}"
        self.register_buffer("mean", make_column(settings["mean"]), persistent=False)
        self.register_buffer("std", make_column(settings["std"]), persistent=False)
        self.freeze()

    def _extract(self, x: Tensor) -> Features:
        """Computes the features and the requested maps."""
        y = _normalize(x, self._range, self.size, self._mode, self.mean, self.std)
        maps: Sequence[Tensor] = ()
        net: Any = self.net
        if self._maps:
            y, maps = net.forward_intermediates(y, indices=self._maps, output_fmt="NCHW")
        else:
            y = net.forward_features(y)
        vector: Tensor = net.forward_head(y)
        return Features(F.normalize(vector, dim=1) if self._output == "projected" else vector, tuple(maps))


def dinov2(
    x: Images, *, weights: TimmWeights, model: TimmModel = _DINOV2, size: PositiveInt = 224, sha256: Sha256 = None
) -> Timm:
    """The class token of DINOv2: the features of FD-DINOv2.

    Only the model and size of the paper have the label `dinov2`.

    References:
        Exposing flaws of generative model evaluation metrics (Stein et al., 2023), https://arxiv.org/abs/2306.04675

    Args:
        size: Height and width that images are resized to, a multiple of 14.

    Raises:
        ValueError: Under the conditions of `Timm`.
    """
    part = Timm(x, weights=weights, model=model, size=size, sha256=sha256)
    if (model, size) == (_DINOV2, 224):
        part.label = "dinov2"
    return part


def clip(
    x: Images, *, weights: TimmWeights, model: TimmModel = _CLIP, size: PositiveInt | None = None, sha256: Sha256 = None
) -> Timm:
    """The image embedding of CLIP, with unit norm: the features of CMMD.

    Only the model of the paper, at its input size, has the label `clip`.

    References:
        Rethinking FID (Jayasumana et al., 2024), https://arxiv.org/abs/2401.09603

    Args:
        size: Height and width that images are resized to; None is the model's input size.

    Raises:
        ValueError: Under the conditions of `Timm`.
    """
    part = Timm(x, weights=weights, model=model, size=size, output="projected", sha256=sha256)
    if model == _CLIP and size in (None, part.native_size):
        part.label = "clip"
    return part


def _load(owner: str, make: Callable[[], nn.Module], tensors: Mapping[str, Tensor], source: str) -> nn.Module:
    """Loads a network with its weights on the CPU, and moves it to the device on which parts are built."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):  # its initial weights are discarded
        net = make()
    load_exactly(owner, net, tensors, source)
    return net.to(torch.empty(0).device)


def _normalize(
    x: Tensor, source: tuple[float, float], size: int, mode: Literal["bilinear", "bicubic"], mean: Tensor, std: Tensor
) -> Tensor:
    unit = map_range(x.to(mean.dtype), source, (0.0, 1.0))
    return (resize(convert_channels(unit, 3), size, mode) - mean) / std


def _remove_head(net: nn.Module, model: str) -> nn.Linear:
    """Removes the last linear layer from the network and returns it."""
    linear = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"TorchVision expects a model that ends in a linear layer, such as resnet18, got {model!r}")
    name, head = linear[-1]
    parent, _, leaf = name.rpartition(".")
    setattr(net.get_submodule(parent), leaf, nn.Identity())
    return head


def _check_submodules(net: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """Checks the names, and turns off in-place activations, which would overwrite the maps."""
    known = dict(net.named_modules())
    odd = [name for name in names if not name or name not in known]
    if odd:
        raise ValueError(f"TorchVision expects maps to name modules, such as {list(known)[1:6]}, got {odd}")
    for module in known.values():
        if getattr(module, "inplace", False):
            module.inplace = False
    return tuple(names)


def _run_with_maps(net: nn.Module, names: Sequence[str], x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Runs the network; returns its output, and the outputs of its named modules."""
    caught: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, args, out: caught.__setitem__(name, out)

    handles = [net.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        out: Tensor = net(x)
    finally:
        for handle in handles:
            handle.remove()
    return out, tuple(caught[name] for name in names)


def _adapt(net: Any, model: str, size: int, output: str, maps: bool) -> None:
    """Adapts a timm network to the size, and removes its classifier for pooled output."""
    patch = getattr(getattr(net, "patch_embed", None), "patch_size", (1, 1))
    if any(size % side for side in patch):
        raise ValueError(f"Timm expects a size that is a multiple of {model}'s patches of {patch[0]}, got {size}")
    if maps and not hasattr(net, "forward_intermediates"):
        raise ValueError(f"Timm expects a model that gives intermediate maps, got {model!r}")
    if output == "projected" and not net.num_classes:
        raise ValueError(f"Timm expects a model with a classifier for output 'projected', got {model!r}")
    if output == "pooled":
        net.reset_classifier(0)
    if hasattr(net, "set_input_size"):
        net.set_input_size(img_size=(size, size))
