"""The authors' checkpoints and configurations as Lightning and LitEma wrote them.

{target: ldm.models.autoencoder.AutoencoderKL, params: {embed_dim: 4, …}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from modkit_checkpoints.conversion import join_keys, tensors_of

__all__ = ["find_model", "read_lightning", "read_target", "take_averages"]


def read_target(node: Any, where: str) -> tuple[str, Mapping[str, Any]]:
    """Reads `{target, params}`: the name of the class, without its module, and the parameters.

    Raises:
        ValueError: If the node is something else. The message names its path, `where`.
    """
    if not isinstance(node, Mapping) or not isinstance(node.get("target"), str) or set(node) - {"target", "params"}:
        got = sorted(map(str, node)) if isinstance(node, Mapping) else repr(node)
        raise ValueError(f"{where} is expected to be {{target, params}}, got {got}")
    params = node.get("params") or {}
    if not isinstance(params, Mapping):
        raise ValueError(f"{where}.params is expected to be a mapping, got {params!r}")
    return node["target"].rpartition(".")[2], params


def find_model(config: Any) -> Any:
    """Returns the model's `{target, params}` of a whole configuration, or the configuration if it is one itself.

    Raises:
        ValueError: If there is no configuration.
    """
    if not isinstance(config, Mapping):
        raise ValueError(f"the format expects a configuration (--config) with `model`, got {config!r}")
    model = config.get("model", config)
    return {key: model[key] for key in model if key != "base_learning_rate"} if isinstance(model, Mapping) else model


def read_lightning(source: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Returns the state dict of a checkpoint of Lightning's, or `source` itself, and the checkpoint's other keys.

    Raises:
        ValueError: If there is no state dict.
    """
    if isinstance(source, Mapping) and "state_dict" in source:
        return tensors_of(source["state_dict"], "state_dict"), tuple(str(key) for key in source if key != "state_dict")
    return tensors_of(source, "the checkpoint"), ()


def take_averages(
    tensors: Mapping[str, Tensor], prefix: str, raw: bool, *, under: str = "model_ema."
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Replaces the tensors under `prefix` by the averages of LitEma, if present, and returns the keys set aside.

    LitEma stores a parameter by its name in the averaged module, without the dots. Losses are not replaced.

    Raises:
        ValueError: If only some of the parameters have averages, or an average has no parameter.
    """
    kept = {key: value for key, value in tensors.items() if not key.startswith(under)}
    shadows = {key: value for key, value in tensors.items() if key.startswith(under)}
    left = [key for key in (f"{under}decay", f"{under}num_updates") if shadows.pop(key, None) is not None]
    if not shadows or raw:
        return kept, (*left, *shadows)
    lacking = []
    for key in [key for key in kept if key.startswith(prefix)]:
        name = key.removeprefix(prefix)
        shadow = shadows.pop(under + name.replace(".", ""), None)
        if name.startswith("loss.") or name == "colorize":
            left += [under + name.replace(".", "")] * (shadow is not None)
        elif shadow is None:
            lacking.append(key)
        else:
            kept[key] = shadow
            left.append(key)
    if shadows:
        raise ValueError(f"averages of parameters that do not exist: {join_keys(shadows)}")
    if lacking:
        raise ValueError(f"no average of {join_keys(lacking)}, though there are averages of others")
    return kept, tuple(left)
