from functools import partial

import pytest
import torch
from torch import nn

import modkit
from modkit import Event, Model, Player, Slot, Spec, SpecError, TensorType, build, check, load, train, use
from modkit.building.builder import Site
from modkit.building.graph import find_owner
from modkit.building.plan import MAX_PARTS, plan
from modkit.errors import MissingPart
from modkit.kinds import Encoder, default
from modkit.nn.trained import is_trained
from modkit.publishing.export import export
from modkit.specs.overrides import apply, locate
from tests.play import MLP, spec
from tests.refusals import list_problems, refusals

HEAD = "name: toy\ndata: {use: digits, size: 8}\n"
LATENT = f"""{HEAD}model:
  use: latent
  autoencoder: {{encoder: mlp, decoder: mlp}}
  prior: {{use: diffusion, network: mlp, schedule: cosine, sampler: {{use: ddim, steps: 5}}}}
train: {{steps: 3, players: {{"prior/*": {{optimizer: sgd}}}}}}
"""


class Flat(nn.Module):
    """An encoder that flattens and scales."""

    def __init__(self, x: TensorType, *, scale: float = 1.0):
        super().__init__()
        self.h = TensorType((x.numel,))
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x):
        return self.scale * x.flatten(1)


def flattened(x: TensorType, *, scale: float = 2.0) -> nn.Module:
    return Flat(x, scale=scale)


def read(text):
    return Spec.from_yaml(text, "spec.yaml")


def test_short_forms_and_defaults_are_written_out():
    planned = plan(read(LATENT))
    model = planned.resolved.model
    assert model["autoencoder"]["encoder"] == use("mlp", width=256, depth=2, activation="silu", norm="none")
    assert model["autoencoder"].use == "autoencoder" and model["autoencoder"]["bottleneck"].use == "gaussian"
    assert model["prior"]["sampler"] == use("ddim", steps=5, eta=0.0, grid=use("auto"), clip=True)
    assert model["prior"]["schedule"] == use("cosine", num=1000, offset=0.008, max_beta=0.999)
    assert "critic" not in model["autoencoder"] and "scale" not in model
    assert planned.spec == read(LATENT), "what was written stays as it was"


def test_what_another_parameter_replaces_is_refused_beside_it_unless_an_older_run_wrote_its_default():
    flow = use("flow", bijection=use("chain", layers=["actnorm"]))
    written = Spec(model=flow, x={"shape": [2]})
    planned = plan(written)
    assert planned.resolved.model["bijection"] == use("chain", layers=(use("actnorm"),)), "it has neither"
    assert "model.bijection.layer" not in planned.parts and not locate(planned.spec, "layer")
    older = written.with_value(
        "model.bijection.layer", plan(Spec(model="flow", x=written.x)).resolved.at("model.bijection.layer")
    ).with_value("model.bijection.depth", 4)
    assert plan(older).resolved == planned.resolved
    for name, value in (("depth", 8), ("layer", "linear"), ("layer", use("coupling", transform="spline"))):
        with pytest.raises(SpecError, match=f"model.bijection.{name}: got '{name}' beside 'layers', which replaces it"):
            plan(written.with_value(f"model.bijection.{name}", value))
    other = apply(written, ["model.bijection.layers=null", "model.bijection.layer=linear"])[0]
    assert plan(other).resolved.model["bijection"]["layer"].use == "linear"


def test_a_plan_has_every_part_by_its_path_and_every_registered_one_used():
    planned = plan(read(LATENT))
    assert planned.parts["model.prior.network"].name == "mlp"
    assert planned.parts["train.players.prior/*.optimizer"].name == "sgd"
    assert planned.nodes["model.prior.network"] == planned.resolved.at("model.prior.network")
    used = {str(entry.part) for entry in planned.entries}
    assert {"model latent", "sampler ddim", "optimizer sgd", "optimizer adamw", "data digits", "engine local"} <= used


@pytest.mark.parametrize(
    "model",
    [
        use("gan", generator="mlp", regularizers={"r1": use("r1", gamma=2.0)}, weights={"r1": 0.5}),
        use("autoencoder", **MLP, bottleneck=use("vq", num_codes=8, channels=3), critic="mlp"),
        use("latent", autoencoder=use("autoencoder", **MLP), prior=use("diffusion", network="mlp")),
        use("latent", autoencoder={"encoder": "mlp", "decoder": "mlp"}, prior=use("gan", generator="mlp")),
    ],
    ids=lambda model: model.use,
)
def test_a_resolved_spec_resolves_to_itself_and_reads_back(model):
    settings = {"players": {"*": {"optimizer": use("adam", lr=0.1), "every": 2}}, "terms": {"*": {"every": 3}}}
    resolved = plan(spec(model, loggers=["tensorboard"], stages=[{"players": ["*"]}], **settings)).resolved
    assert plan(resolved).resolved == resolved
    assert Spec.from_yaml(resolved.to_yaml()) == resolved


@pytest.mark.smoke
def test_every_problem_is_found_and_stands_at_its_place():
    text = f"""{HEAD}model:
  use: gan
  generator: {{use: mlp, widht: 4}}
  discriminator: {{use: mpl}}
  z_dim: many
  regularizers: [r1]
train:
  optimizer: {{use: adam, lr: fast}}
"""
    found = list_problems(plan, read(text))
    assert [problem.split(": ")[:2] for problem in found] == [
        ["spec.yaml:5:25", "model.generator.widht"],
        ["spec.yaml:6:24", "model.discriminator"],
        ["spec.yaml:8:17", "model.regularizers"],
        ["spec.yaml:7:10", "model.z_dim"],
        ["spec.yaml:10:30", "train.optimizer.lr"],
    ]
    assert "did you mean 'width'?" in found[0] and "did you mean 'mlp'?" in found[1]
    assert "expected int, got 'many'" in found[3]


test_what_does_not_fit_a_signature_is_refused = refusals(
    (
        "{use: gan, generator: {use: mlp, x: 3}}",
        "3:41: model.generator.x: got 'x', which the slot of the generator mlp provides",
    ),
    ("{use: gan, generator: {ref: model.discriminator}}", "got model.discriminator, which does not exist"),
    (
        "{use: gan, discriminator: mlp, generator: {ref: model.discriminator}}",
        "3:50: model.generator: got a ref to the discriminator at model.disc.*, expected a part of kind generator",
    ),
    (
        "{use: gan, discriminator: {ref: model}, z_dim: 4}",
        r"got a cycle model.discriminator → model → model.discriminator",
    ),
    ("{use: diffusion, network: {width: 8}, sampler: {steps: 2}}", "model.network.width: got an unknown key 'width'"),
    ("{use: gan, weights: {r1: {value: 2}}}", "model.weights.r1: got no `use`, expected a part of kind weight: "),
    ("{use: gan, weights: {r1: {use:decay}}}", r"r1: .* \(write a blank after the colon: `use: decay`\)$"),
    ("{use: gan, weights: {r1: true}}", "model.weights.r1: got True, expected a part of kind weight: its name"),
    ("{use: gan, weights: {r1: 4000000000}}", "model.weights.r1: expected a number below 2\\^31"),
    ("{use: image}", "3:14: model: no model is called 'image'; "),
    ("{use: gan, generator: {use:mlp}}", r"'use:mlp', .* \(write a blank after the colon: `use: mlp`\)$"),
    ("{use: gan, generator: {use: mlp, width:8}}", r"'width:8', .* \(write a blank after the colon: `width: 8`\)$"),
    (
        "{use: diffusion, guidance: {use: none, scale: 2}}",
        "guidance.scale: got the key 'scale', but the guidance none takes no parameters",
    ),
    (
        "{use: gan, generator: {use: 7}}",
        "3:36: model.generator: got 7 as `use`, expected the name of a part of kind generator",
    ),
    ("{use: gan, generator: {use: ''}}", "3:36: model.generator: no generator is called ''"),
    ("{use: gan, generator: {use: [mlp]}}", "3:36: model.generator: got a list as `use`"),
    ("{use: gan, generator: {use: null}}", "3:36: model.generator: got no `use`, expected a part of kind generator"),
    (
        "{use: 'local:a:B'}",
        "3:14: model: got the local a:B, which cannot be loaded by name, expected a registered model",
    ),
    ("{use: acme/gan}", "no model is called 'acme/gan'"),
    ("{use: run}", "3:8: model: got no `path`, expected the directory of a run"),
    ("{use: run, path: nowhere}", "3:8: model: the run cannot be used: Run.open expects the directory of a run"),
    ("{use: run, path: nowhere, trian: true}", "got an unknown key 'trian', expected path, at, train"),
    ("{use: run, path: 3}", "model.path: got 3, expected str"),
    (f"{{use: run, path: {'a' * 5000}}}", "the run cannot be used: .*too long"),
    ("null", "missing|got null"),
    of=lambda model: plan(read(f"{HEAD}model: {model}")),
    error=SpecError,
)


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".", "n" * 101, '"a\\0b"', '"a\\\\b"'])
def test_a_name_is_that_of_a_folder(name):
    (problem,) = list_problems(plan, read(f"name: {name}\ndata: digits\nmodel: gan"))
    assert problem.startswith("spec.yaml:1:7: name: got ") and problem.endswith(", expected a plain name, as of a file")


def test_a_setting_that_is_required_is_missed():
    message = "spec.yaml:4:18: train.stages[0]: got no 'players', which is required: Patterns of the players."
    assert list_problems(plan, read(f"{HEAD}model: gan\ntrain: {{stages: [{{steps: 2}}]}}")) == [message]


def test_a_spec_without_data_needs_a_type():
    message = "spec.yaml:1:1: data: missing, expected a data set, or `x` with the type of one sample"
    assert list_problems(plan, read("model: gan")) == [message]
    assert plan(read("model: gan\nx: {shape: [4]}")).resolved.data is None


def test_more_parts_than_any_system_has_are_refused():
    many = ", ".join(f"r{index}: r1" for index in range(MAX_PARTS))
    (problem,) = list_problems(plan, read(f"{HEAD}model: {{use: gan, regularizers: {{{many}}}}}"))
    assert f"parts with all defaults, expected at most {MAX_PARTS}" in problem


def test_references_stay_and_are_the_same_object():
    text = f"""{HEAD}model:
  use: latent
  autoencoder: {{encoder: mlp, decoder: {{use: mlp, width: "${{train.batch_size}}"}}}}
  prior: {{use: latent, autoencoder: {{encoder: mlp, decoder: mlp}}, prior: {{use: diffusion, network: mlp}}}}
train: {{batch_size: 24}}
"""
    assert plan(read(text)).nodes["model.autoencoder.decoder"]["width"] == 24
    regularizers = f"{HEAD}model: {{use: gan, regularizers: {{a: r1, b: {{ref: model.regularizers.a}}}}}}"
    planned = plan(read(regularizers))
    assert planned.refs == {"model.regularizers.b": "model.regularizers.a"}
    assert planned.resolved.model["regularizers"]["b"] == {"ref": "model.regularizers.a"}
    assert plan(planned.resolved).resolved == planned.resolved
    game = build(read(regularizers))
    assert game.penalties.parts["a"] is game.penalties.parts["b"]


@pytest.mark.parametrize("local", [Flat, flattened], ids=["class", "function"])
def test_a_local_part_is_built_trained_and_recorded_as_not_reloadable(local, tmp_path):
    model = use("autoencoder", encoder=use(local, scale=3.0), decoder=MLP["decoder"])
    own = spec(model)
    name = f"{local.__module__}:{local.__qualname__}"
    assert build(own).encoder.scale == 3.0
    run = train(own, tmp_path / "run", steps=1)
    assert Spec.from_yaml(run.spec_text).model["encoder"] == use(f"local:{name}", scale=3.0)
    message = rf"spec.yaml:\d+:\d+: model.encoder: got the local {name}, which cannot be loaded by name"
    with pytest.raises(SpecError, match=message):
        load(run)
    trained = load(run, spec=own)
    assert torch.equal(trained.encoder.scale, run.load_weights()["encoder.scale"]) and trained.encoder.scale != 3.0
    train(own, tmp_path / "run", steps=2, resume=True)
    with pytest.raises(SpecError, match="model.encoder.scale: expected float, got 'x'"):
        build(spec(use("autoencoder", encoder=use(Flat, scale="x"), decoder=MLP["decoder"])))


def test_a_default_that_no_spec_can_hold_is_refused_at_its_place():
    """The fault: the part was built, and only the run that was to write it failed, without its place."""

    class Endless(Flat):
        def __init__(self, x: TensorType, *, scale: float = float("inf")):
            super().__init__(x)

    message = (
        r"model\.encoder\.scale: the default of the parameter cannot be written: got inf, expected a finite number"
    )
    with pytest.raises(SpecError, match=message):
        plan(spec(use("autoencoder", encoder=use(Endless))))
    plan(spec(use("autoencoder", encoder=use(Endless, scale=2.0))))


def test_a_local_part_must_declare_what_it_takes():
    class Vague(nn.Module):
        def __init__(self, x, **rest):
            super().__init__()

    class Odd(nn.Module):
        def __init__(self, x: Event, *, fancy: object):
            super().__init__()

    for part in (Vague, Odd):
        with pytest.raises(SpecError, match=f"model.encoder: the encoder {part.__name__} cannot be used: ValueError"):
            plan(spec(use("autoencoder", encoder=use(part))))


@pytest.fixture
def run(tmp_path):
    return train(spec(use("autoencoder", **MLP)), tmp_path / "vae", steps=1)


def test_a_trained_piece_is_that_runs_part_and_resolves_without_it(run, tmp_path):
    piece = use("run", path=str(run.path))
    latent = spec(use("latent", autoencoder=piece, prior=use("diffusion", network=use("mlp", width=8, depth=1))))
    planned = plan(latent)
    node = planned.nodes["model.autoencoder"]
    assert (planned.parts["model.autoencoder"].name, node["at"], node["train"]) == ("autoencoder", "model", False)
    written = planned.resolved.model["autoencoder"]
    assert written["part"]["encoder"] == use("mlp", width=16, depth=1, activation="silu", norm="none")
    assert written["train"] is False
    assert plan(planned.resolved).resolved == planned.resolved
    model = build(latent)
    assert [player.name for player in model.list_active_players()] == ["prior/denoiser"]
    kept = run.load_weights()
    assert all(torch.equal(value, kept[name]) for name, value in model.autoencoder.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.autoencoder.parameters())
    run.path.rename(tmp_path / "moved")
    assert plan(planned.resolved).resolved == planned.resolved, "a resolved spec needs no other run"
    with pytest.raises(SpecError, match="model.autoencoder: the run cannot be used: "):
        plan(latent)


def test_a_check_refuses_weights_of_a_piece_that_do_not_fit_as_the_building_of_it_does(run, tmp_path):
    """The fault: only what was trained, or a sweep's jobs, refused them, in torch's words."""

    def make(path, **data):
        encoder = use("run", path=str(path), at="model.encoder")
        return spec(use("autoencoder", encoder=encoder, decoder=MLP["decoder"]), use("digits", **data))

    wide = make(run.path, size=16)
    site = Site(plan(wide), meta=False)
    site.build_model(TensorType((1, 16, 16), (-1, 1)), {})
    exported = make(export(run, tmp_path / "exported"), size=16)
    said = r"model.encoder: the encoder mlp .*: it expects weights of its own shapes, got those of model.encoder in "
    said += r".*: 1 of another shape: \S* \(16, 64\) instead of \(16, 256\)"
    for refuse in (site.check, *(partial(check, one) for one in (wide, exported, plan(wide).resolved))):
        with pytest.raises(SpecError, match=said):
            refuse()


@pytest.mark.wide
def test_a_run_goes_on_without_the_run_of_its_piece_and_a_new_one_is_refused_by_the_check(run, tmp_path):
    encoder = use("run", path=str(run.path), at="model.encoder")
    own = train(spec(use("autoencoder", encoder=encoder, decoder=MLP["decoder"])), tmp_path / "own", steps=1)
    resolved = Spec.from_yaml(own.spec_text)
    check(resolved)
    run.path.rename(tmp_path / "moved")
    with pytest.raises(SpecError, match="model.encoder: .* Run.open expects the directory of a run"):
        check(resolved)
    modkit.branch(own, tmp_path / "branch", steps=2)
    train(resolved, own.path, steps=2, resume=True)
    assert own.kept[-1] == "step-00000002"


def test_what_training_alone_refuses_is_a_warning_of_the_check(run):
    """The fault: it found no problem."""
    frozen = spec(use("run", path=str(run.path)))
    report = check(frozen)
    (finding,) = report.idle
    assert str(finding).startswith("model: training expects a model with something to train, got a frozen one")
    assert finding.overrides == ("model.train=true",) and f"warning: {finding}" in str(report)
    assert "; 1 problem found" in str(report) and not report.findings
    assert build(frozen).sample(2, seed=0).shape == (2, 1, 8, 8), "it can be sampled"
    with pytest.raises(SpecError, match="model: training expects .*, got a frozen one"):
        report.raise_idle()
    assert not check(apply(frozen, finding.overrides)[0]).idle


def test_a_stage_without_anything_to_train_is_found_by_the_check():
    idle = check(spec(use(Still))).idle
    assert [(one.path, one.message.partition(",")[0]) for one in idle] == [
        ("train.stages[0]", "training expects stages with something to train")
    ]


@pytest.mark.wide
def test_a_run_with_a_piece_is_a_piece_itself_without_the_run_of_its_own(run, tmp_path):
    """The fault: each piece was read from its own run, though the weights of the one around it are all."""
    prior = use("diffusion", network=use("mlp", width=8, depth=1), sampler=use("ddim", steps=2))
    latent = train(
        spec(use("latent", autoencoder=use("run", path=str(run.path)), prior=prior)), tmp_path / "latent", steps=1
    )
    export(latent, tmp_path / "exported")
    run.path.rename(tmp_path / "moved")
    kept = latent.load_weights()
    for path in (latent.path, tmp_path / "exported"):
        model = build(spec(use("run", path=str(path), train=True)))
        assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
        assert [player.name for player in model.list_active_players()] == ["prior/denoiser"]
        assert is_trained(model)


def test_a_piece_of_a_trained_piece_is_taken_by_its_path(run):
    encoder = use("run", path=str(run.path), at="model.encoder", train=True)
    model = build(spec(use("autoencoder", encoder=encoder, decoder=MLP["decoder"])))
    kept = run.load_weights()
    assert all(torch.equal(value, kept[f"encoder.{name}"]) for name, value in model.encoder.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.encoder.parameters())
    with pytest.raises(SpecError, match="the run cannot be used: .*model.encodre"):
        plan(spec(use("autoencoder", encoder=use("run", path=str(run.path), at="model.encodre"))))
    with pytest.raises(SpecError, match="no encoder is called 'mlp'|expected a encoder|no decoder|encoder"):
        plan(spec(use("autoencoder", encoder=use("run", path=str(run.path), at="model.bottleneck"))))


def test_a_missing_part_is_the_reason_of_its_problem():
    with pytest.raises(SpecError) as error:
        plan(spec(use("autoencoder", encoder=use("acme/thin"), decoder=use("nonsense"), bottleneck={"use": 3})))
    reasons = [problem.reason for problem in error.value.problems]
    assert {(one.kind, one.name) for one in reasons if isinstance(one, MissingPart)} == {
        ("encoder", "acme/thin"),
        ("decoder", "nonsense"),
    }


def test_a_piece_with_a_reference_inside_is_loaded_and_so_are_pieces_of_it(tmp_path):
    """The fault: the run of it could be trained, but not loaded: the reference was looked for outside of the piece."""
    small = {"width": 4, "depth": 1}
    parts = {"generator": use("mlp", **small), "discriminator": use("mlp", **small)}
    regularizers = {"a": "r1", "b": {"ref": "model.regularizers.a"}}
    train(spec(use("gan", **parts, regularizers=regularizers)), tmp_path / "gan", steps=1)
    run = train(spec(use("run", path=str(tmp_path / "gan"), train=True)), tmp_path / "run", steps=1)
    model = load(run)
    assert model.penalties.parts["a"] is model.penalties.parts["b"]
    piece = use("run", path=str(run.path), at="model.generator")
    generator = build(spec(use("gan", **parts | {"generator": piece}))).generator.state_dict()
    assert all(torch.equal(value, generator[key]) for key, value in model.generator.state_dict().items())


class Still(Model):
    """A model whose player has nothing to train."""

    def __init__(self, x: TensorType) -> None:
        super().__init__()
        self.event, self.net = x, nn.Identity()

    def players(self):
        return (Player("own", ("net",)),)

    def losses(self, player, batch, step):
        return {"mean": self.net(batch.tensor).mean()}


class Apart(Model):
    """A model that keeps its slot in an attribute of another name, and a layer in that of the slot's."""

    def __init__(self, x: TensorType, *, inside: Slot[Encoder] = default("mlp")) -> None:
        super().__init__()
        self.event, self.other = x, inside(x=x)
        self.inside = nn.Linear(2, 2)

    def players(self):
        return (Player("own", ("other",)),)

    def losses(self, player, batch, step):
        return {"squared": (self.other(batch.tensor) ** 2).mean()}

    def draw(self, num, fields, cond, rng):
        return rng.normal("x", self.allocate(num, self.event))


def test_a_piece_is_taken_from_the_attribute_that_has_it(tmp_path):
    """The fault: it was looked for in the attribute of its slot's name."""
    run = train(spec(use(Apart, inside=MLP["encoder"])), tmp_path / "run", steps=1)
    assert run.lock["modules"] == {"model.inside": ["other"]}
    encoder = use("run", path=str(run.path), at="model.inside")
    model = build(spec(use("autoencoder", encoder=encoder, decoder=MLP["decoder"])))
    kept = run.load_weights()
    assert all(torch.equal(value, kept[f"other.{name}"]) for name, value in model.encoder.state_dict().items())
    assert find_owner(check(spec(use(Apart, inside=MLP["encoder"]))), "model.inside") == "own"


def test_a_null_that_is_no_default_is_written_out():
    nodes = dict(MLP, bottleneck=use("gaussian", channels=None))
    planned = plan(spec(use("autoencoder", **nodes)))
    again = plan(Spec.from_yaml(planned.resolved.to_yaml()))
    assert planned.resolved.model["bottleneck"] == use("gaussian", channels=None)
    assert again.get_arguments("model.bottleneck") == {"channels": None}
    assert "critic" not in planned.resolved.model, "null is its default"


class Named(Flat):
    """An encoder whose scale may be said by a name, and whose values come from elsewhere."""

    def __init__(self, x: TensorType, *, scale: float = 1.0, name: str | None = None):
        super().__init__(x, scale=scale)
        assert name is None

    @staticmethod
    def expand_params(params):
        if params.get("name") == "nobody":
            raise ValueError("Named expects a name that it knows, got 'nobody'")
        told = {key: value for key, value in params.items() if key != "name"}
        return {"scale": 3.0, **told} if "name" in params else told

    def load_pretrained(self):
        with torch.no_grad():
            self.scale += 0.5


def named(**params):
    return spec(use("autoencoder", encoder=use(Named, **params), decoder=MLP["decoder"]))


def test_a_part_says_what_its_keywords_stand_for():
    planned = plan(named(name="three"))
    assert planned.get_arguments("model.encoder") == {"scale": 3.0}
    assert planned.resolved.model["encoder"].params == {"scale": 3.0}
    assert plan(named(name="three", scale=4.0)).nodes["model.encoder"]["scale"] == 4.0
    message = "model.encoder: .* cannot be used: Named expects a name that it knows, got 'no"
    with pytest.raises(SpecError, match=message):
        plan(named(name="nobody"))


def test_values_from_elsewhere_are_loaded_into_a_new_model_alone(tmp_path):
    system = named(name="three")
    assert float(build(system).encoder.scale.detach()) == 3.5
    run = train(system, tmp_path / "run", steps=1)
    trained = run.load_weights()["encoder.scale"]
    assert float(trained) != 3.5
    assert torch.equal(load(run, spec=system).encoder.scale, trained)
