"""Composition from Python objects: what goes into a slot, and that specs and objects are one."""

from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import modkit
from modkit import CondType, Spec, SpecError, TensorType, build, seeded, spec_of, use
from modkit.bottlenecks import Gaussian
from modkit.building.compose import get_composition
from modkit.building.plan import plan
from modkit.building.review import review_model
from modkit.conditioners import Encoded
from modkit.data import Digits
from modkit.diffusion.loss_weights import MinSNR
from modkit.kinds import Encoder, Network, Schedule, Slot, default
from modkit.models import GAN, Autoencoder, Cascade, Diffusion, Latent
from modkit.models.autoguidance import AutoGuidance
from modkit.models.model import Model
from modkit.nn import ConvEncoder, MLPNetwork
from modkit.nn.trained import is_trained, mark_trained
from modkit.samplers import DDIM
from modkit.sweeps.trials import freeze
from modkit.training.ownership import collect_modules
from tests.files import write_pictures

X = TensorType((1, 8, 8), (-1.0, 1.0))
SMALL = {"network": partial(MLPNetwork, width=8, depth=1)}


class Convolution(nn.Module):
    """A network of one's own."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, cond):
        return self.inner(x) + cond.time.view(-1, 1, 1, 1)


class Pooled(nn.Module):
    """An encoder of one's own, behind the line that says what it emits."""

    def __init__(self):
        super().__init__()
        self.h = TensorType((1, 4, 4))

    def forward(self, x):
        return nn.functional.avg_pool2d(x, 2)


def same(a, b):
    state, other = a.state_dict(), b.state_dict()
    return state.keys() == other.keys() and all(
        torch.equal(state[k].nan_to_num(), other[k].nan_to_num()) for k in state
    )


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    "slots",
    [
        {"network": MLPNetwork, "loss_weight": "min-snr"},
        {"network": "mlp", "loss_weight": MinSNR},
        {"network": use("mlp"), "loss_weight": partial(MinSNR)},
        {"network": partial(MLPNetwork), "loss_weight": {"use": "min-snr"}},
    ],
)
def test_a_class_a_name_a_partial_and_a_node_are_one(slots):
    spec = Spec(model=use("diffusion", network="mlp", loss_weight="min-snr"), x={"shape": [1, 8, 8], "range": [-1, 1]})
    with seeded(0):
        model = Diffusion(X, **slots)
    assert same(model, build(spec))
    assert torch.equal(model.sample(2, seed=1), build(spec).sample(2, seed=1))
    assert plan(spec_of(model)).resolved == get_composition(model).plan.resolved


def test_weights_are_those_of_the_seed_and_the_slot_and_else_of_torch():
    with seeded(3):
        first, again = Diffusion(X, **SMALL), Diffusion(X, **SMALL)
    with seeded(4):
        other = Diffusion(X, **SMALL)
    assert same(first, again) and not same(first, other)
    torch.manual_seed(0)
    drawn, next_one = Diffusion(X, **SMALL), Diffusion(X, **SMALL)
    torch.manual_seed(0)
    assert same(drawn, Diffusion(X, **SMALL)) and not same(drawn, next_one)
    with pytest.raises(ValueError, match="seeded expects seed to be at least 0, got -1"), seeded(-1):
        pass


def test_a_built_module_stands_in_a_slot_and_no_spec_holds_it():
    net = Convolution()
    model = Diffusion(X, network=net)
    assert model.network is net
    assert [p for module in collect_modules(model, model.players()[0]) for p in module.parameters(recurse=False)]
    assert model.sample(2, seed=0).shape == (2, 1, 8, 8)
    with pytest.raises(SpecError, match=r"model\.network: got a built .*Convolution, which no spec can hold"):
        spec_of(model)
    changed = get_composition(model).plan.spec.with_value("model.network.width", 8)
    with pytest.raises(SpecError, match=r"model\.network\.width: got 'width' for the built Convolution, expected no"):
        plan(changed, typed=True)


def test_a_built_encoder_says_what_it_emits():
    model = Autoencoder(X, encoder=Pooled(), bottleneck="identity", decoder="mlp")
    assert model.encode(torch.zeros(2, 1, 8, 8), "continuous").shape == (2, 1, 4, 4)


def test_weights_beside_a_part_that_needs_values_are_trusted(tmp_path):
    """The fault: no loss was known, so that training refused every weight."""

    class Branching(Pooled):
        def forward(self, x):
            return super().forward(x) if x.mean().item() < 100 else x

    model = Autoencoder(X, encoder=Branching(), decoder="mlp", weights={"kl": 0.5})
    run = modkit.fit(model, torch.rand(8, 1, 8, 8), tmp_path / "run", steps=1, batch_size=4, device="cpu")
    assert run.finished and model.weights("autoencoder")["kl"].value == 0.5


def test_the_types_of_a_built_module_are_checked_before_any_other_is_built():
    wrong = nn.Conv2d(3, 1, 3)
    before = wrong.weight.clone()
    with pytest.raises(SpecError, match=r"model\.network: it cannot run on its types"):
        Diffusion(X, network=wrong)
    assert torch.equal(wrong.weight, before) and not wrong.weight.is_meta


def test_a_composed_model_stands_in_a_slot_with_its_weights_and_its_spec():
    with seeded(0):
        inner = Autoencoder(X, encoder=partial(ConvEncoder, channels=[4]), decoder="mlp")
        weight = inner.encoder.state_dict()["first.weight"] if "first.weight" in inner.encoder.state_dict() else None
        model = Latent(X, autoencoder=inner, prior=partial(Diffusion, **SMALL))
    assert model.autoencoder is inner and inner.encoder.origin.path == "model.autoencoder.encoder"
    assert weight is None or torch.equal(weight, inner.encoder.state_dict()["first.weight"])
    written = spec_of(model)
    parts = get_composition(model).plan.parts
    assert [path for path in parts if "optimizer" in path] == ["train.optimizer"]  # of this model's training alone
    assert written.at("model.autoencoder.encoder.channels") == (4,)
    assert plan(written).tree == plan(Spec.from_yaml(str(written))).tree
    assert inner.encoder in collect_modules(model, model.players()[0])
    with pytest.raises(SpecError, match=r"model\.autoencoder: .* it was composed for x 1×8×8"):
        Latent(TensorType((1, 4, 4)), autoencoder=inner)


TINY = {"encoder": use("mlp", width=4, depth=1), "decoder": use("mlp", width=4, depth=1)}


@pytest.mark.parametrize("slot", [partial(Autoencoder, **TINY), use("autoencoder", **TINY)], ids=["class", "spec"])
def test_a_model_inside_another_is_composed_as_if_on_its_own(slot):
    """The fault: only one that was composed before had a spec, or other parts by `with_parts`."""
    with seeded(0):
        model = Latent(X, autoencoder=slot, prior=partial(Diffusion, **SMALL))
    built = build(replace(spec_of(model), x={"shape": [1, 8, 8], "range": [-1, 1]}))
    coder = Autoencoder(X, **TINY)
    alone = get_composition(coder)
    for inner in (model.autoencoder, built.autoencoder):
        written = spec_of(inner)
        assert plan(written).nodes["model"] == alone.plan.nodes["model"]
        assert written == replace(spec_of(coder), x=written.x)
        assert get_composition(inner).origins == alone.origins
        assert (get_composition(inner).x, get_composition(inner).cond) == (alone.x, alone.cond)
    other = model.prior.with_parts(sampler="heun")
    assert type(other.sampler).__name__ == "Heun" and same(other, model.prior)


@pytest.mark.parametrize("classes", [4, None])
def test_a_composed_model_is_held_to_the_fields_that_it_reads(classes):
    """The fault: a prior for 3 classes was taken for data of 4, and failed after the whole stage of the autoencoder."""
    labels, other = TensorType((), classes=3), {"other": TensorType((2,))}
    coder = Autoencoder(X, encoder="mlp", decoder="mlp")
    prior = Diffusion(coder.latents["continuous"], fields={"labels": labels}, conditioner="label", network="mlp")
    Latent(X, fields={"labels": labels, **other}, autoencoder=coder, prior=prior)
    fields = {"labels": replace(labels, classes=classes)} if classes else {}
    with pytest.raises(SpecError, match=r"model\.prior: .* it was composed for the field labels as .* 3 classes"):
        Latent(X, fields={**fields, **other}, autoencoder=coder, prior=prior)


@pytest.mark.wide
def test_what_no_spec_holds_of_a_composed_model_is_named(caplog):
    """The fault: a model built from the spec had other weights, and trained what was frozen, and nothing said so."""
    small = {"encoder": use("mlp", width=4, depth=2), "decoder": use("mlp", width=4, depth=1)}
    prior = partial(Diffusion, **SMALL)
    with seeded(0):
        inner = Autoencoder(X, **small)
        model = Latent(X, autoencoder=inner, prior=prior)
        again = Latent(X, autoencoder=partial(Autoencoder, **small), prior=prior)
    assert same(build(spec_of(again)), again) and not caplog.messages
    assert not same(build(spec_of(model)), model)
    lost = "the spec holds no weights of model.autoencoder, composed before: a model built from it initialises them"
    assert caplog.messages == [lost]
    caplog.clear()
    again.autoencoder.encoder.requires_grad_(False)
    names = [name for name, _ in again.named_parameters() if name.startswith("autoencoder.encoder.")]
    fresh = build(spec_of(again))
    assert all(fresh.get_parameter(name).requires_grad for name in names)
    shown = f"{', '.join(names[:3])}, … ({len(names)} in all)"
    assert caplog.messages == [f"the spec does not freeze {shown}: a model built from it trains these parameters"]


@pytest.mark.wide(1)
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_loaded_model_and_one_inside_it_go_into_another_that_loads(tmp_path, whole, frozen):
    """The fault: with the latter, no command could load the run of the other."""
    pictures, train = torch.rand(8, 1, 8, 8), {"steps": 1, "batch_size": 4, "device": "cpu"}
    prior = partial(Diffusion, **SMALL)
    first = Autoencoder(X, **TINY) if whole else Latent(X, autoencoder=partial(Autoencoder, **TINY), prior=prior)
    modkit.fit(first, pictures, tmp_path / "first", **train)
    loaded = modkit.load(tmp_path / "first")
    inner = (loaded if whole else loaded.autoencoder).requires_grad_(not frozen)
    before = deepcopy(inner.state_dict())
    model = Latent(X, autoencoder=inner, prior=prior)
    modkit.fit(model, pictures, tmp_path / "run", **train)
    again = modkit.load(tmp_path / "run").autoencoder
    assert same(again, inner)
    kept = [torch.equal(before[key], value) for key, value in again.state_dict().items()]
    assert all(kept) if frozen else not all(kept)


def test_a_model_inside_another_keeps_what_it_refers_to_outside():
    fields = {"low_res": X}
    encoded = use("encoded", autoencoder={"ref": "model.autoencoder"}, field="low_res")
    prior = use("diffusion", network=use("unet", channels=[4]), conditioner=encoded)
    coder = use("autoencoder", encoder=use("conv", channels=[4]), decoder="mlp")
    old = Latent(X, fields=fields, autoencoder=coder, prior=prior)
    alone, inside = get_composition(old.prior), get_composition(old)
    assert alone.plan.objects["model.conditioner.autoencoder"].value is old.autoencoder
    origins = {name: alone.origins[f"conditioner.autoencoder{name}"] for name in ("", ".encoder")}
    assert [(one.path, one.owner) for one in origins.values()] == [
        ("model.conditioner.autoencoder", "model.conditioner"),
        ("model.conditioner.autoencoder.encoder", "model.conditioner.autoencoder"),
    ]
    assert spec_of(old.prior).at("model.conditioner.autoencoder.encoder.use") == "conv"
    model = Latent(X, fields=fields, autoencoder=old.autoencoder, prior=old.prior)
    assert get_composition(model).plan.nodes["model"] == inside.plan.nodes["model"]
    assert get_composition(model).origins == inside.origins
    assert spec_of(model) == replace(spec_of(old), x=spec_of(model).x)


@pytest.mark.wide
def test_one_object_in_two_slots_is_one_module_and_a_ref():
    fields = {"low_res": X}
    with seeded(0):
        coder = Autoencoder(X, encoder=partial(ConvEncoder, channels=[4]), decoder="mlp")
        encoded = partial(Encoded, autoencoder=coder, field="low_res")
        model = Latent(
            X, fields=fields, autoencoder=coder, prior=partial(Diffusion, conditioner=encoded, network="unet")
        )
    assert model.prior.conditioner.autoencoder is model.autoencoder is coder
    written = spec_of(model)
    assert written.at("model.prior.conditioner.autoencoder.ref") == "model.autoencoder"
    assert build(Spec.from_yaml(str(written))).state_dict().keys() == model.state_dict().keys()
    net = Convolution()
    pair = Pair(X, first=net, second=net)
    assert pair.first is pair.second is net and len(collect_modules(pair, pair.players()[0])) == 2


@pytest.mark.parametrize("first", ["autoencoder", "prior"])
def test_an_object_that_a_composed_model_holds_too_has_one_place(first):
    """The fault: its place inside the other model counted, where a frozen conditioner holds it, so none trained it."""
    fields = {"low_res": X}
    coder = Autoencoder(X, encoder=partial(ConvEncoder, channels=[4]), decoder="mlp")
    encoded = partial(Encoded, autoencoder=coder, field="low_res")
    latent = replace(coder.latents["continuous"], std=1.0)
    prior = Diffusion(latent, fields=fields, conditioner=encoded, network=use("unet", channels=[4]))
    slots = {"autoencoder": coder, "prior": prior}
    model = Latent(X, fields=fields, **dict(sorted(slots.items(), key=lambda slot: slot[0] != first)))
    assert model.autoencoder is model.prior.conditioner.autoencoder is coder
    assert spec_of(model).at("model.prior.conditioner.autoencoder.ref") == "model.autoencoder"
    owned = [collect_modules(model, player) for player in model.players()]
    assert all(module in owned[0] and module not in owned[1] for module in coder.encoder.modules())
    assert all(module in owned[1] for module in prior.network.modules())
    assert get_composition(model).origins["prior.conditioner.autoencoder.encoder"].path == "model.autoencoder.encoder"


def test_references_inside_a_composed_model_follow_an_object_to_its_place():
    net = Convolution()
    inner = Pair(X, first=net, second=net)
    model = Three(X, net=net, pair=inner)
    assert get_composition(model).plan.refs == {"model.pair.first": "model.net", "model.pair.second": "model.net"}
    assert net in collect_modules(model, model.players()[0])
    with pytest.raises(
        SpecError, match=r"model\.pair\.first: got the built Convolution that is the encoder at model\.net"
    ):
        Coded(X, net=net, pair=inner)


class Around(nn.Module):
    """A network of one's own around another module."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, cond):
        return self.inner(x, cond)


def test_a_module_in_several_models_is_trained_in_each(tmp_path):
    """The fault: a later model's place of it hid that of the earlier one, whose players then left it frozen."""
    net = Convolution()
    models = [Diffusion(X, network=net) for _ in range(2)]
    models += [Diffusion(X, network="mlp", guidance=partial(AutoGuidance, guide=models[1]))]
    models += [Diffusion(X, network=Around(net))]
    for model in (*models[:2], models[3], deepcopy(models[0])):
        owned = [module for player in model.players() for module in collect_modules(model, player)]
        assert all(module in owned for module in model.network.modules())
    assert not set(collect_modules(models[2], *models[2].players())) & set(net.modules())  # a guide is frozen
    before = net.inner.weight.clone()
    modkit.fit(models[0], torch.rand(8, 1, 8, 8), tmp_path / "run", steps=1, batch_size=4, device="cpu")
    assert not torch.equal(net.inner.weight, before)


def test_findings_of_a_model_that_stands_in_another_too_are_at_its_own_paths():
    guide = Diffusion(X, network="mlp")
    model = Diffusion(X, network="mlp", guidance=partial(AutoGuidance, guide=guide))
    assert {note.path for note in review_model(guide)} == {"model"}
    assert {note.path for note in review_model(model)} == {"model", "model.guidance.guide"}


class Silent(nn.Module):
    """A network whose output has the wrong shape."""

    def forward(self, x, cond):
        return x[:, :, :4]


def make_tied(module):
    return Autoencoder(X, encoder=module, bottleneck="identity", decoder=module)


class Pair(Model):
    """Two networks."""

    def __init__(
        self,
        x: TensorType,
        cond: CondType,
        *,
        first: Slot[Network] = default("mlp"),
        second: Slot[Network] = default("mlp"),
    ) -> None:
        super().__init__()
        self.event = x
        self.first = first(x=x, out=x, cond=CondType(time=True))
        self.second = second(x=x, out=x, cond=CondType(time=True))

    def players(self):
        return (modkit.Player("networks", ("first", "second")),)

    def losses(self, player, batch, step):
        return {}


class Three(Model):
    """A network, and a model of two."""

    def __init__(self, x: TensorType, cond: CondType, *, net: Slot[Network], pair: Slot[Model]) -> None:
        super().__init__()
        self.event = x
        self.net = net(x=x, out=x, cond=CondType(time=True))
        self.pair = pair(x=x, cond=cond, fields={})

    def players(self):
        return (modkit.Player("net", ("net",)),)

    def losses(self, player, batch, step):
        return {}


class Coded(Three):
    """An encoder, and a model of two networks."""

    def __init__(self, x: TensorType, cond: CondType, *, net: Slot[Encoder], pair: Slot[Model]) -> None:
        super().__init__(x, cond, net=net, pair=pair)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Diffusion(), "Diffusion expects `x`, the TensorType of one sample .*, got nothing"),
        (lambda: Diffusion((1, 8, 8)), "Diffusion expects `x`, the TensorType of one sample .*, got tuple"),
        (
            lambda: Diffusion(X, "unet"),
            r"Diffusion expects `cond`.*, got 'unet': pass parts by keyword \(network, sche",
        ),
        (lambda: Diffusion(X, CondType(), {}, 1), "Diffusion expects x, cond, fields by position, got 4 values"),
        (lambda: Diffusion(X, x=X), "Diffusion got 'x' twice"),
        (lambda: Diffusion(X, netwrok="mlp"), r"model\.netwrok: got an unknown key 'netwrok', expected one of"),
        (lambda: Diffusion(X, network="mpl"), r"model\.network: .*mpl.*did you mean 'mlp'"),
        (lambda: Diffusion(X, network=partial(MLPNetwork, 3)), r"model\.network: got a partial with 1 positional"),
        (lambda: Diffusion(X, network=partial(MLPNetwork, x=X)), r"model\.network: got 'x' in a partial; leave it out"),
        (lambda: Diffusion(X, network=partial(MLPNetwork, width="a")), r"model\.network\.width: expected int, got 'a'"),
        (lambda: Latent(X, prior=partial(GAN, generator="conv")), r"model\.prior\.generator: .*conv"),
        (lambda: Diffusion(X, network=partial(MLPNetwork, norm=nn.SiLU)), r"model\.network\.norm: got an unknown key"),
        (
            lambda: Diffusion(X, network=partial(MLPNetwork, width=nn.SiLU)),
            r"model\.network\.width: got .*SiLU.*, expected plain",
        ),
        (lambda: Diffusion(X, network={"use": "mlp", "width": nn.SiLU}), r"model\.network\.width: got .*SiLU"),
        (lambda: GAN(X, discriminators=[MLPNetwork]), r"model\.discriminators: got a list, expected a mapping"),
        (
            lambda: Autoencoder(X, encoder="mlp", decoder="mlp", weights={"k": 0.5}),
            r"model\.weights\.k: got a weight of 'k', expected one of the losses: kl, nll",
        ),
        (lambda: make_tied(Pooled()), r"model\.decoder: got the built Pooled that is the encoder at model\.encoder"),
        (lambda: Diffusion(X, network=Silent()), r"model\.network: the network Silent, .* declares an output of 1×8×8"),
        (lambda: build(use("diffusion")), "build expects a Spec, got a mapping that uses diffusion"),
    ],
)
def test_mistakes_name_the_slot(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_model_of_ones_own_composes_and_its_class_is_local():
    class Own(Model):
        """One network."""

        def __init__(self, x: TensorType, *, inside: Slot[Encoder] = default("mlp"), size: int = 2) -> None:
            super().__init__()
            self.event, self.kept, self.size = x, inside(x=x), size

        def players(self):
            return (modkit.Player("own", ("kept",)),)

        def losses(self, player, batch, step):
            return {"squared": (self.kept(batch.tensor) ** 2).mean()}

        def draw(self, num, fields, cond, rng):
            return rng.normal("x", self.allocate(num, self.event))

    with seeded(0):
        model = Own(X, inside=partial(modkit.nn.MLPEncoder, width=8), size=3)
    assert model.size == 3 and model.kept.origin.owner == "model"
    with pytest.raises(SpecError, match=r"model: got the local .*Own, which no spec can hold"):
        spec_of(model)


def test_a_slot_kept_under_another_name_trains(tmp_path):
    """The fault: its players owned nothing, and training finished at step 0."""

    class Own(Model):
        def __init__(self, x: TensorType, *, inside: Slot[Encoder] = default("mlp")) -> None:
            super().__init__()
            self.event, self.other = x, inside(x=x)

        def players(self):
            return (modkit.Player("own", ("other",)),)

        def losses(self, player, batch, step):
            return {"squared": (self.other(batch.tensor) ** 2).mean()}

        def draw(self, num, fields, cond, rng):
            return rng.normal("x", self.allocate(num, self.event))

    model = Own(X)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modkit.fit(model, torch.ones(8, 1, 8, 8), tmp_path / "run", steps=2, batch_size=4, device="cpu")
    assert all(not torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_spec_and_objects_are_built_by_one_planner_with_the_same_defaults():
    model = Autoencoder(X)
    assert isinstance(model.bottleneck, Gaussian) and isinstance(model.encoder, ConvEncoder)
    assert spec_of(model).at("model.bottleneck.use") == "gaussian"
    assert str(spec_of(model)).startswith("name: model\nmodel:\n  use: autoencoder\n")


def test_conditions_from_outside_are_in_no_spec():
    model = Diffusion(X, CondType(vector=3), **SMALL)
    with pytest.raises(ValueError, match="no conditions from an enclosing Model, got a model composed for vector 3"):
        spec_of(model)


@pytest.mark.wide
def test_what_has_a_spec_sweeps():
    spec = replace(spec_of(Diffusion(X, **SMALL)), data=use("digits", size=8), x=None)
    trials = freeze(spec, ["train.seed=0,1", "model.network.width=8,16"])
    assert [trial.label for trial in trials][:2] == [f"model.network.width=8,train.seed={seed}" for seed in (0, 1)]
    assert {Spec.from_yaml(trial.spec).at("model.network.width") for trial in trials} == {8, 16}


def test_a_level_of_a_cascade_is_composed_as_if_on_its_own():
    levels = (TensorType((1, 2, 2), std=1.0), TensorType((1, 4, 4), std=1.0))
    model = Cascade(levels, level=partial(Diffusion, **SMALL))
    for index in (0, 1):
        composed = get_composition(getattr(model, f"level[{index}]"))
        parts = get_composition(Diffusion(levels[index], **SMALL)).plan.parts
        assert [*composed.plan.parts] == [path for path in parts if path.startswith("model")]
        assert composed.origins["network"].path == "model.network" and composed.x == levels[index]


def test_a_model_inside_another_has_its_local_parts():
    class Shifted(Convolution):
        def __init__(self, x, out, cond, *, by: float = 0.0):
            super().__init__()
            self.by = by

    coder = partial(Autoencoder, encoder=Pooled(), decoder="mlp", bottleneck="identity")
    model = Latent(X, autoencoder=coder, prior=partial(Diffusion, network=partial(Shifted, by=2.0)))
    with pytest.raises(SpecError, match=r"model\.encoder: got a built .*Pooled, which no spec can hold"):
        spec_of(model.autoencoder)
    other = model.prior.with_parts(sampler="heun")
    assert isinstance(other.network, Shifted) and other.network.by == 2.0 and same(other, model.prior)
    again = get_composition(model.autoencoder).plan
    assert plan(again.spec, typed=True).objects["model.encoder"].value is model.autoencoder.encoder


def test_hierarchies_compose(tmp_path):
    event = (TensorType((2, 2), classes=4), TensorType((4, 4), classes=4))
    model = Cascade(event)
    assert model.event == event and spec_of(model).x is None


def test_schedules_given_built_are_used_as_they_are():
    from modkit.diffusion.schedules import Cosine

    schedule: Schedule = Cosine(num=7)
    model = Diffusion(X, schedule=schedule, sampler={"use": "ddim", "steps": 3}, **SMALL)
    assert model.schedule is schedule and model.parametrization.schedule is schedule


@pytest.mark.wide
def test_images_need_not_be_there_to_load_and_sample(tmp_path):
    """The fault: loading read the data again to learn their type."""
    folder = tmp_path / "images"
    write_pictures(folder)
    spec = Spec(
        model=use("diffusion", network=use("mlp", width=8, depth=1), sampler=use("ddim", steps=2)),
        data=use("image-folder", root=str(folder), size=8, channels=1),
        train={"steps": 1, "batch_size": 4, "device": "cpu", "samples": {"num": 4}},
    )
    run = modkit.train(spec, tmp_path / "run")
    before = modkit.load(run).sample(2, seed=0)
    folder.rename(tmp_path / "gone")
    assert torch.equal(modkit.load(tmp_path / "run").sample(2, seed=0), before)
    assert torch.equal(modkit.load(run, ["model.sampler=ddim", "model.sampler.steps=2"]).sample(2, seed=0), before)


@pytest.mark.wide
def test_parts_that_only_sampling_uses_are_swapped_in_a_model_that_shares_its_weights(tmp_path):
    data = Digits(size=8)
    prior = partial(Diffusion, network=partial(MLPNetwork, width=8, depth=1), sampler=partial(DDIM, steps=3))
    with modkit.seeded(0):
        model = Latent(data.x, autoencoder=partial(Autoencoder, encoder="mlp", decoder="mlp"), prior=prior)
        other = Latent(
            data.x,
            autoencoder=partial(Autoencoder, encoder="mlp", decoder="mlp"),
            prior=partial(prior, sampler=use("dpm-solver++", steps=2)),
        )
    run = modkit.fit(model, data, tmp_path / "run", steps=1, batch_size=8, device="cpu")
    modkit.load(run, model=other)
    before = model.sample(2, seed=0)
    made = model.with_parts(sampler=use("dpm-solver++", steps=2))
    assert torch.equal(made.sample(2, seed=0), other.sample(2, seed=0)) and torch.equal(model.sample(2, seed=0), before)
    assert all(one is two for one, two in zip(made.parameters(), model.parameters(), strict=True))
    assert torch.equal(made.with_parts(**{"model.prior.sampler": partial(DDIM, steps=3)}).sample(2, seed=0), before)
    made.requires_grad_(True)
    model.prior.requires_grad_(False)
    model.with_parts(sampler="heun")
    assert not any(one.requires_grad for one in model.prior.parameters())
    assert all(one.requires_grad for one in model.autoencoder.parameters())
    heun = {"sampler": use("heun", steps=3), "guidance": "none"}
    loaded = modkit.load(run).with_parts(**heun)
    assert torch.equal(loaded.sample(2, seed=0), model.with_parts(**heun).sample(2, seed=0))
    for name in ("schedule", "samplre", "model.prior.network"):
        with pytest.raises(ValueError, match=rf"got '{name}', but no slot .*expected one of: .*model\.prior\.sampler"):
            model.with_parts(**{name: "ddim"})
    with pytest.raises(SpecError, match=r"model\.prior\.sampler: no sampler is called 'nonsense'"):
        model.with_parts(sampler="nonsense")


@pytest.mark.wide
def test_a_model_with_other_parts_is_trained_where_it_was():
    """The fault: its codes were initialised at k-means centres again, before the first step of another training."""
    coder = partial(Autoencoder, encoder="mlp", decoder="mlp", bottleneck="vq")
    model = Latent(X, autoencoder=coder, prior=partial(Diffusion, network="mlp"))
    assert not is_trained(model.with_parts(sampler="heun").autoencoder)
    mark_trained(model.autoencoder)
    assert is_trained(model.with_parts(sampler="heun").autoencoder)
    former, guide = (Diffusion(X, network="mlp") for _ in range(2))
    guided = mark_trained(Diffusion(X, network="mlp", guidance=partial(AutoGuidance, guide=former)))
    made = guided.with_parts(guidance=partial(AutoGuidance, guide=guide))
    assert is_trained(made.network) and not is_trained(made.guidance.guide)
