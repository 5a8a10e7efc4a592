"""What each part of a model has to do with its samples: they are drawn again with the part initialised anew."""

import torch

__all__ = ["moved"]


def moved(model, fresh):
    """By part (`PATH KIND NAME`), whether samples change once its own tensors are those of `fresh`, of another seed.

    What another part in it keeps is not its own. A part without tensors, or with the same in both (tables), is left
    out. Where what it was prepared with is lost, and the model says so, that is a change.
    """
    state, other = model.state_dict(), fresh.state_dict()
    before, found = _drawn(model), {}
    for part, names in _own(model).items():
        names = [name for name in names if not torch.equal(state[name], other[name])]
        if names:
            kept = {name: state[name].clone() for name in names}
            model.load_state_dict({name: other[name] for name in names}, strict=False)
            after = _drawn(model)
            found[part] = after is None or not torch.equal(after, before)
            model.load_state_dict(kept, strict=False)
    assert torch.equal(_drawn(model), before)
    return found


def _own(model):
    """Names of the tensors of each part, without those of the parts in it."""
    parts = {name: module.origin for name, module in model.named_modules() if hasattr(module, "origin")}
    found = {}
    for name in model.state_dict():
        owner = max((part for part in parts if not part or name.startswith(f"{part}.")), key=len)
        origin = parts[owner]
        found.setdefault(f"{origin.path} {origin.kind} {origin.name}", []).append(name)
    return found


def _drawn(model):
    """Samples, or None where it has not been prepared."""
    try:
        return model.sample(16, seed=0)
    except ValueError as refusal:
        assert "prepared" in str(refusal)
        return None
