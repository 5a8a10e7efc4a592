"""The authors' checkpoints and configurations as Lightning and LitEma wrote them.

{target: ldm.models.autoencoder.AutoencoderKL, params: {embed_dim: 4, …}}
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from modkit_checkpoints.conversion import tensors_of

__all__ = ["averaged", "lightning", "model_of", "target"]


def target(node: Any, where: str) -> tuple[str, Mapping[str, Any]]:
    """The class's name, without its module, and the parameters of `{target, params}`.

    Args:
        node: The node.
        where: Its path, for errors.

    Raises:
        ValueError: If it is something else.
    """
    if not isinstance(node, Mapping) or not isinstance(node.get("target"), str) or set(node) - {"target", "params"}:
        got = sorted(map(str, node)) if isinstance(node, Mapping) else repr(node)
        raise ValueError(f"{where} is expected to be {{target, params}}, got {got}")
    params = node.get("params") or {}
    if not isinstance(params, Mapping):
        raise ValueError(f"{where}.params is expected to be a mapping, got {params!r}")
    return node["target"].rpartition(".")[2], params


def model_of(config: Any) -> Any:
    """The model's `{target, params}` in a whole configuration, or what is one itself.

    Raises:
        ValueError: If there is no configuration.
    """
    if not isinstance(config, Mapping):
        raise ValueError(f"the format expects a configuration (--config) with `model`, got {config!r}")
    model = config.get("model", config)
    return {key: model[key] for key in model if key != "base_learning_rate"} if isinstance(model, Mapping) else model


def lightning(source: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state dict of a checkpoint of Lightning, and what else it holds; or a state dict itself.

    Raises:
        ValueError: If there is none.
    """
    if isinstance(source, Mapping) and "state_dict" in source:
        return tensors_of(source["state_dict"], "state_dict"), tuple(str(key) for key in source if key != "state_dict")
    return tensors_of(source, "the checkpoint"), ()


def averaged(
    tensors: Mapping[str, Tensor], prefix: str, raw: bool, *, under: str = "model_ema."
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors with those of `prefix` as LitEma has averaged them, where it has, and the keys that are set aside.

    LitEma keeps a parameter under its name in the module it averages, without the dots. Losses are left as they are.

    Raises:
        ValueError: If it has averaged some parameters of the prefix and not others, or one that there is none of.
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
    if shadows or lacking:
        expected = f"averages of parameters that are not there: {_few(shadows)}" if shadows else ""
        raise ValueError(expected or f"no average of {_few(lacking)}, though there are of others")
    return kept, tuple(left)


def _few(keys: Collection[str]) -> str:
    return ", ".join(list(keys)[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
