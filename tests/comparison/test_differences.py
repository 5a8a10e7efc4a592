"""What differs between specs: every path, and gathered by part."""

from modkit.comparison.differences import Cell, Row, differing, rows, written
from modkit.specs.node import Node

A = Node(
    {
        "model": {"use": "diffusion", "sampler": {"use": "ddim", "steps": 50, "eta": 0.0}, "schedule": {"use": "edm"}},
        "train": {"steps": 10, "betas": [0.9, 0.999]},
    }
)
B = Node(
    {
        "model": {"use": "diffusion", "sampler": {"use": "heun", "steps": 50}, "schedule": {"use": "edm"}},
        "train": {"steps": 20, "betas": [0.9, 0.999], "stages": [{"players": ["a/*"], "steps": 1}, {"players": ["b"]}]},
    }
)


def test_every_path_that_differs_and_no_other():
    assert differing([A, B]) == {
        "model.sampler.use": ("ddim", "heun"),
        "model.sampler.eta": (0.0, None),
        "train.steps": (10, 20),
        "train.stages[0].players": (None, ("a/*",)),
        "train.stages[0].steps": (None, 1),
        "train.stages[1].players": (None, ("b",)),
    }
    assert differing([A, A, A]) == {} and rows([A, A]) == []


def test_a_swapped_part_is_one_row_with_its_parameters():
    assert rows([A, B]) == [
        Row("model.sampler", (Cell("ddim", "steps 50, eta 0"), Cell("heun", "steps 50"))),
        Row("train.steps", (Cell(text="10"), Cell(text="20"))),
        Row("train.stages", (Cell(), Cell(text="{players: [a/*], steps: 1}\n{players: [b]}"))),
    ]


def test_a_parameter_of_the_same_part_is_a_row_of_its_own():
    more = Node({"model": {"use": "diffusion", "sampler": {"use": "ddim", "steps": 5, "eta": 0.0}}})
    less = Node({"model": {"use": "diffusion", "sampler": {"use": "ddim", "steps": 50, "eta": 0.0}}})
    assert rows([more, less]) == [Row("model.sampler.steps", (Cell(text="5"), Cell(text="50")))]


def test_parts_inside_swapped_parts_have_their_rows():
    gan = Node(
        {"model": {"use": "gan", "generator": {"use": "mlp", "width": 8}, "regularizers": {"r1": {"use": "r1"}}}}
    )
    vae = Node({"model": {"use": "autoencoder", "critic_start": 0, "encoder": {"use": "conv"}}})
    assert rows([gan, vae]) == [
        Row("model", (Cell("gan"), Cell("autoencoder", "critic_start 0"))),
        Row("model.generator", (Cell("mlp", "width 8"), Cell())),
        Row("model.regularizers.r1", (Cell("r1"), Cell())),
        Row("model.encoder", (Cell(), Cell("conv"))),
    ]


def test_values_are_written_as_they_are_read():
    value = Node({"a": [1, 2.50, 1e-08, True, None], "b": {"c": "x"}, "d": 0.1234567890123})
    assert written(value) == "{a: [1, 2.5, 1e-08, true, null], b: {c: x}, d: 0.1234567890123}"
