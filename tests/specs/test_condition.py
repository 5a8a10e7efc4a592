import pytest

from modkit.errors import SpecError
from modkit.specs.condition import SpecCondition
from modkit.specs.spec import Spec

SPEC = Spec.from_yaml("""
name: a
model:
  use: latent
  prior: {use: diffusion, sampler: {use: ddim, steps: 50, clip: true}, network: {use: unet, channels: [32, 64]}}
train: {optimizer: {use: adamw, lr: 0.001}, clip: null}
""")


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("name=a", True),
        ("model=latent", True),
        ("model=diffusion", False),
        ("model.prior.sampler=ddim", True),
        ("sampler=ddim", True),
        ("sampler=heun", False),
        ("sampler={use: ddim, steps: 50, clip: true}", True),
        ("sampler={use: ddim}", False),
        ("prior.sampler.steps=50", True),
        ("steps=50", True),
        ("steps='50'", False),
        ("clip=true", True),
        ("sampler.clip=1", False),
        ("train.clip=null", True),
        ("lr=1e-3", True),
        ("channels=[32, 64]", True),
        ("channels[1]=64", True),
        ("absent=1", False),
    ],
)
def test_a_condition_holds_at_a_path_or_any_with_its_end(text, holds):
    assert SpecCondition.read(text).holds(SPEC) is holds


@pytest.mark.parametrize("text", ["", "=", "=1", "sampler", "a..b=1", "a=[1"])
def test_what_is_no_condition_is_refused(text):
    with pytest.raises(SpecError):
        SpecCondition.read(text)


@pytest.mark.parametrize(
    "text", ["model=run", "model=latent", "model.prior.sampler=ddim", "model.part.prior=diffusion"]
)
def test_a_condition_holds_inside_a_piece_of_another_run(text):
    """The fault: no run with a piece met a condition on what the piece is."""
    piece = {"use": "run", "path": "runs/a", "at": "model", "train": False, "part": SPEC.model}
    assert SpecCondition.read(text).holds(Spec(model=piece))
    assert not SpecCondition.read("model.prior.sampler=heun").holds(Spec(model=piece))
