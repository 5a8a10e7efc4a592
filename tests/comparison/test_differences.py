"""What differs between specs: every path, and gathered by part."""

from modkit.building.difference import format_value
from modkit.comparison.differences import gather_rows, list_leaves
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
    assert list_leaves([A, B]) == {
        "model.sampler.use": ("ddim", "heun"),
        "model.sampler.eta": (0.0, None),
        "train.steps": (10, 20),
        "train.stages[0].players": (None, ("a/*",)),
        "train.stages[0].steps": (None, 1),
        "train.stages[1].players": (None, ("b",)),
    }
    assert list_leaves([A, A, A]) == {} and gather_rows([A, A]) == []


def test_a_swapped_part_is_one_row_with_its_parameters():
    stages = ({"players": ["a/*"], "steps": 1}, {"players": ["b"]})
    assert gather_rows([A, B]) == [
        ("model.sampler", (A["model"]["sampler"], B["model"]["sampler"])),
        ("train.steps", (10, 20)),
        ("train.stages", (None, tuple(map(Node, stages)))),
    ]


def test_a_parameter_of_the_same_part_is_a_row_of_its_own():
    more = Node({"model": {"use": "diffusion", "sampler": {"use": "ddim", "steps": 5, "eta": 0.0}}})
    less = Node({"model": {"use": "diffusion", "sampler": {"use": "ddim", "steps": 50, "eta": 0.0}}})
    assert gather_rows([more, less]) == [("model.sampler.steps", (5, 50))]


def test_equal_numbers_of_different_types_differ():
    trees = [Node({"model": {"use": "gan", "weight": value}}) for value in (1, 1.0, True)]
    assert list_leaves(trees) == {"model.weight": (1, 1.0, True)} and len(gather_rows(trees)) == 1


def test_parts_inside_swapped_parts_have_their_rows():
    gan = Node(
        {"model": {"use": "gan", "generator": {"use": "mlp", "width": 8}, "regularizers": {"r1": {"use": "r1"}}}}
    )
    vae = Node({"model": {"use": "autoencoder", "critic_start": 0, "encoder": {"use": "conv"}}})
    assert gather_rows([gan, vae]) == [
        ("model", (Node({"use": "gan"}), Node({"use": "autoencoder", "critic_start": 0}))),
        ("model.generator", (Node({"use": "mlp", "width": 8}), None)),
        ("model.regularizers.r1", (Node({"use": "r1"}), None)),
        ("model.encoder", (None, Node({"use": "conv"}))),
    ]


def test_values_are_written_as_they_are_read():
    value = Node({"a": [1, 2.50, 1e-08, True], "b": {"c": "x"}, "d": 0.1234567890123})
    assert format_value(value) == "{a: [1, 2.5, 1e-08, true], b: {c: x}, d: 0.1234567890123}"
    assert format_value(Node({"use": "ddim", "steps": 50, "eta": 0.0})) == "ddim(steps=50, eta=0.0)"
