import json

import pytest
import torch
from torch import nn

from modkit import Spec, SpecError, TensorType, build, load, train, use
from modkit.building.builder import Factory, Failed, Site
from modkit.building.limit import MAX_REGISTRATIONS
from modkit.building.plan import plan
from modkit.specs.event import MAX_RANK, read_fields, read_type
from tests.files import write_fashion_mnist
from tests.play import GAN, MLP, SMALL, read_model, spec, state
from tests.refusals import list_problems, refusals

LATENT = use("latent", autoencoder=use("autoencoder", **MLP), prior=use("diffusion", network=use("mlp", **SMALL)))


class Deep(nn.Module):
    """An encoder of very many small modules, kept in a list until the end."""

    def __init__(self, x: TensorType, *, num: int = MAX_REGISTRATIONS + 1):
        super().__init__()
        self.h = TensorType((1,))
        self.built = 0
        layers = []
        for _ in range(num):
            layers.append(nn.Linear(1, 1))
            Deep.built += 1
        self.layers = nn.Sequential(*layers)


class Told(nn.Module):
    """An encoder that keeps what it is told."""

    def __init__(self, x: TensorType, *, sizes: list[int] = [1, 2], table: dict[str, float] | None = None):  # noqa: B006
        super().__init__()
        self.h = TensorType((x.numel,))
        self.x, self.sizes, self.table = x, sizes, table

    def forward(self, x):
        return x.flatten(1)


class Asking(Told):
    """An encoder that wants what encoders are not told."""

    def __init__(self, x: TensorType, codes: TensorType):
        super().__init__(x)


def site(own, **options):
    return Site(plan(own), meta=False, **options)


def test_initialisation_is_a_function_of_seed_and_path():
    one, again, other = (state(build(spec(GAN, seed=seed))) for seed in (0, 0, 1))
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    assert not any(torch.equal(value, other[name]) for name, value in one.items() if name.endswith(".weight"))
    assert not torch.equal(one["generator.out.weight"][0], one["discriminator.out.weight"][0])


def test_a_swap_leaves_the_initialisation_of_other_places_alone():
    wide = use("autoencoder", encoder=use("mlp", width=16, depth=1), decoder=use("mlp", width=12, depth=2))
    one, other = state(build(spec(use("autoencoder", **MLP)))), state(build(spec(wide)))
    assert all(torch.equal(one[name], other[name]) for name in one if name.startswith("encoder."))


def test_building_draws_nothing_from_the_global_generator():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    build(spec(GAN))
    assert torch.equal(torch.rand(1), expected)


def test_parts_receive_the_types_and_keywords_that_they_declare():
    own = use("autoencoder", encoder=use(Told, sizes=[3, 4], table={"a": 1.5}), decoder=MLP["decoder"])
    encoder = build(spec(own)).encoder
    assert encoder.x == TensorType((1, 8, 8), range=(-1.0, 1.0))
    assert (encoder.sizes, encoder.table) == ([3, 4], {"a": 1.5})
    assert build(spec(use("autoencoder", encoder=use(Told), decoder=MLP["decoder"]))).encoder.sizes == [1, 2]


def test_modules_know_where_they_were_built():
    model = build(spec(LATENT))
    assert model.prior.network.origin.path == "model.prior.network"
    assert (model.prior.network.origin.kind, model.prior.network.origin.name) == ("network", "mlp")
    assert model.prior.network.origin.owner == "model.prior"
    assert model.get_submodule("prior.network") is model.prior.network


def test_meta_modules_hold_no_values_and_other_parts_are_real():
    place = Site(plan(spec(LATENT)), meta=True)
    data = place.data
    model = place.build_model(data.x, data.fields)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert data.read("train", [0], None).tensor.device.type == "cpu"
    assert model.prior.schedule.alphas_cumprod.device.type == "cpu"


def test_a_renewed_site_builds_with_values_and_keeps_settings_and_data():
    own = spec(GAN).with_value("evaluate", {"features": "random-conv"})
    place = Site(plan(own), meta=True)
    data, settings, evaluation = place.data, place.settings, place.evaluation
    assert evaluation.features(x=data.x).project.weight.device.type == "meta"
    place.renew()
    assert place.data is data and place.settings is settings and place.evaluation is evaluation
    assert evaluation.features(x=data.x).project.weight.device.type == "cpu"
    made, whole = place.build_model(data.x, data.fields).state_dict(), build(own).state_dict()
    assert made.keys() == whole.keys() and all(torch.equal(made[key], whole[key]) for key in whole)


def test_settings_are_records_with_factories_for_parts():
    own = spec(GAN, players={"disc*": {"optimizer": use("sgd", lr=0.5)}}, terms={"adversarial": {"every": 2}})
    settings = site(own).settings
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = settings.players["disc*"].optimizer(parameters=[parameter])
    assert type(optimizer).__name__ == "SGD" and optimizer.param_groups[0]["lr"] == 0.5
    assert settings.terms["adversarial"].every == 2 and settings.players["disc*"].every is None


def test_a_slot_says_where_it_was_written():
    own = read_model("{use: gan, generator: mlp}")
    place = site(own)
    assert Factory(place, "model.generator").where == "model.generator (mlp, spec.yaml:3:30)"
    python = site(spec(GAN))
    assert Factory(python, "model.generator").where == "model.generator (mlp)"


def test_what_a_part_refuses_is_reported_at_its_place_with_the_types_it_was_told():
    (problem,) = list_problems(build, read_model("{use: gan, generator: {use: resnet, attention: [5]}}"))
    start = (
        "spec.yaml:3:30: model.generator: the generator resnet cannot be built from z 64 unbounded, x 1×8×8 in [-1, "
    )
    assert problem.startswith(f"{start}1]: ")
    (problem,) = list_problems(build, spec(use("autoencoder", encoder=use(Asking), decoder=MLP["decoder"])))
    assert "model.encoder: the encoder Asking cannot" in problem and "codes" in problem


def test_each_independent_branch_is_reported_once():
    own = """
  use: autoencoder
  encoder: {use: conv, channels: []}
  bottleneck: {use: fsq, levels: []}
  critic: {use: patch, layers: 9}
"""
    assert [problem.split(": ")[:2] for problem in list_problems(build, read_model(own))] == [
        ["spec.yaml:5:12", "model.encoder"],
        ["spec.yaml:4:3", "model.judges.critic.network"],
    ]


def test_what_hangs_on_a_failed_part_has_failed_too():
    failed = Failed()
    assert all(isinstance(one, Failed) for one in (failed.latents, failed(1, a=2).h, *failed.latents.values()))
    with pytest.raises(AttributeError, match="__len__"):
        _ = failed.__len__


@pytest.mark.wide
def test_a_part_of_absurdly_many_modules_is_stopped_while_it_is_made():
    Deep.built = 0
    (problem,) = list_problems(build, spec(use("autoencoder", encoder=use(Deep), decoder=MLP["decoder"])))
    assert f"expected at most {MAX_REGISTRATIONS} modules and parameters in one part, got more" in problem
    assert Deep.built <= MAX_REGISTRATIONS / 2 + 1, "its weights count before it has registered a module"


def test_a_shared_part_is_built_once_and_refused_under_other_types():
    own = read_model("{use: gan, regularizers: {a: r1, b: {ref: model.regularizers.a}}}")
    place = site(own)
    data = place.data
    model = place.build_model(data.x, data.fields)
    assert model.penalties.parts["a"] is model.penalties.parts["b"]
    assert list(place.built).count("model.regularizers.a") == 1
    own = read_model("{use: latent, autoencoder: {encoder: mlp, decoder: mlp}, prior: {ref: model.autoencoder}}")
    (problem,) = list_problems(build, own)
    start = "spec.yaml:3:72: model.prior: the part at model.autoencoder is shared under other types: x 4 "
    assert problem.startswith(start)
    assert "here, x 1×8×8 in [-1, 1]" in problem and problem.endswith("there")


@pytest.mark.parametrize("defined", ["a", "b", "c"])
def test_a_shared_part_is_one_object_in_whatever_order_its_places_are_built(defined):
    parts = {name: "r1" if name == defined else {"ref": f"model.regularizers.{defined}"} for name in "abc"}
    model = build(read_model(f"{{use: gan, regularizers: {json.dumps(parts)}}}"))
    assert len({id(model.penalties.parts[name]) for name in "abc"}) == 1


def test_a_part_whose_ref_is_built_first_keeps_its_weights_shared():
    coder = use("autoencoder", **MLP, conditioner={"ref": "model.prior.conditioner"})
    prior = use("diffusion", network=use("mlp", **SMALL), conditioner=use("label", width=4))
    model = build(spec(use("latent", autoencoder=coder, prior=prior)))
    assert model.autoencoder.conditioner is model.prior.conditioner


@pytest.mark.parametrize("defined", [0, 1])
def test_a_ref_to_a_slot_that_its_part_repeats_shares_each_of_them(defined):
    """The fault: they were built at a path that is none, and the check refused it."""
    layers = [use("coupling", network={"ref": f"model.bijection.layers[{defined}].network"}) for _ in range(2)]
    layers[defined] = use("coupling", network=use("mlp", **SMALL))
    model = build(spec(use("flow", bijection=use("chain", layers=layers)), data="ring"))
    modules = dict(model.named_modules(remove_duplicate=False))
    for index in (0, 1):
        first, second = (modules[f"bijection.layers[{layer}].network[{index}]"] for layer in (0, 1))
        assert first is second and first.origin.path == f"model.bijection.layers[{defined}].network[{index}]"
    assert first is not modules["bijection.layers[0].network[0]"]


def read(x):
    return Spec.from_yaml(f"model: {{use: gan}}\nx: {x}", "spec.yaml")


@pytest.mark.parametrize(
    "x, want",
    [
        ("{shape: [1, 8, 8], range: [-1, 1]}", TensorType((1, 8, 8), range=(-1, 1))),
        ("{shape: [4]}", TensorType((4,))),
        ("{shape: []}", TensorType(())),
        ("{shape: [4, 4], classes: 7}", TensorType((4, 4), classes=7)),
    ],
)
def test_the_type_of_a_spec_without_data(x, want):
    assert read_type(read(x)) == want


test_a_wrong_type_is_refused_at_its_place = refusals(
    ("{shape: [4, 0]}", r"4: x: TensorType expects sizes of at least 1, got shape \(4, 0\)"),
    ("{shape: [4], range: [1, -1]}", r"4: x: TensorType expects range \(low, high\) with low < high"),
    ("{shape: [4], classes: 0}", "4: x: TensorType expects classes >= 1"),
    ("{shape: [4], range: [1]}", "24: x.range: expected 2 values"),
    ("{shape: [4.5]}", r"12: x.shape: \[0\]: expected int, got 4.5"),
    ("{shape: wide}", r"12: x.shape: expected list\[int\], got 'wide'"),
    ("{range: [-1, 1]}", f"4: x: expected a shape of at most {MAX_RANK} sizes"),
    (f"{{shape: {[1] * (MAX_RANK + 1)}}}", f"4: x: expected a shape of at most {MAX_RANK} sizes"),
    (
        "{shpae: [4]}",
        r"5: x.shpae: got an unknown key, expected shape, range, classes, std, levels, fields \(did you mean 'shape'",
    ),
    of=lambda x: read_type(read(x)),
    error=SpecError,
    start="^spec.yaml:2:",
)


def test_the_fields_of_a_spec_without_data():
    own = read("{shape: [4], fields: {labels: {shape: [], classes: 3}, map: {shape: [1, 2], range: [0, 1]}}}")
    assert read_type(own) == TensorType((4,))
    assert read_fields(own) == {"labels": TensorType((), classes=3), "map": TensorType((1, 2), (0, 1))}
    assert read_fields(read("{shape: [4]}")) == {}


test_wrong_fields_are_refused_at_their_place = refusals(
    (read_fields, "{labels: 3}", "34: x.fields.labels: got 3, expected a mapping of shape, range"),
    (read_fields, "{labels: {shape: [], classes: many}}", r"\d+: x.fields.labels.classes: expected int \| None"),
    (read_fields, "{labels: {shape: [], fields: {}}}", r"\d+: x.fields.labels.fields: got an unknown key"),
    (read_type, "[1]", r"\d+: x.fields: expected dict"),
    of=lambda function, fields: function(read(f"{{shape: [4], fields: {fields}}}")),
    error=SpecError,
    start="^spec.yaml:2:",
)


def test_a_model_is_built_from_a_type_alone():
    model = build(Spec.from_yaml("model: {use: gan, z_dim: 2, generator: {use: mlp, width: 4}}\nx: {shape: [3]}"))
    assert model.sample(5, seed=0).shape == (5, 3)


def test_the_home_folder_is_written_out_in_what_parts_receive_and_kept_in_the_spec(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_fashion_mnist(tmp_path / "clothes")
    site = Site(plan(spec("gan", data=use("fashion-mnist", root="~/clothes", size=8))), meta=False)
    data = site.data
    site.check()
    assert data.splits == {"train": 40, "test": 40}
    assert site.plan.resolved.data["root"] == "~/clothes"


def test_the_home_folder_is_written_out_in_the_path_of_a_piece(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    train(spec(use("autoencoder", **MLP)), tmp_path / "runs" / "vae", steps=1)
    model = build(spec(use("run", path="~/runs/vae", at="model", train=True)))
    want = state(load(tmp_path / "runs" / "vae"))
    assert all(torch.equal(value, want[name]) for name, value in state(model).items())
