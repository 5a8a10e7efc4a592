import json
import logging
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import modkit
from modkit import CondType, Spec, SpecError, TensorType, build, check, use
from modkit.building import review
from modkit.building.checker import check_composed, examine
from modkit.building.compose import get_composition
from modkit.building.plan import plan_training
from modkit.building.session import load_run
from modkit.data import Ring
from modkit.diffusion.couplings import Optimal
from modkit.engines.ddp import DDPEngine
from modkit.kinds import Finding
from modkit.models import GAN, Autoencoder, Diffusion, Latent
from modkit.nn import MLPDiscriminator, Packed
from modkit.publishing.import_weights import import_weights
from modkit.runs.run import Run
from modkit.specs.overrides import apply
from modkit.starters.model import Gaussian
from tests.cli.test_app import run as command
from tests.play import MLP, SMALL, spec
from tests.refusals import list_problems

NET = use("mlp", **SMALL)
CONV = {"encoder": use("conv", channels=[4, 8]), "decoder": use("conv", channels=[8, 4])}
DCGAN = use("dcgan", channels=4)
CRITIC = use("patch", channels=4)
UNDROPPED = use("label", width=8, drop=0.0)
HEUN = use("heun", steps=6)


class Steep(nn.Module):
    """A plug-in's critic: spectral normalisation bounds its layer, but not how it embeds the label."""

    def __init__(self, x: TensorType, cond: CondType, *, bounded: bool = False):
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        self.layer, embed = norm(nn.Linear(x.numel, 8)), nn.Linear(max(cond.vector or 0, 1), 8)
        self.embed = norm(embed) if bounded else embed
        self.cond = cond

    def forward(self, x, cond):
        h = self.layer(x.flatten(1))
        given = h.new_ones(len(h), 1) if cond.vector is None else cond.vector
        return (h * self.embed(given)).sum(1)


def diffusion(**parts):
    return use("diffusion", **{"network": NET, "parametrization": "v", "sampler": use("ddim", steps=4), **parts})


def latent(**parts):
    return use("latent", autoencoder=use("autoencoder", **MLP), prior=diffusion(**parts))


def codes(model, **parts):
    autoencoder = use("autoencoder", **CONV, bottleneck=use("vq", num_codes=8, channels=2))
    network = use("transformer", width=8, depth=1, heads=2)
    return use("latent", autoencoder=autoencoder, prior=use(model, network=network, **parts))


def gan(**parts):
    return use("gan", **{"generator": NET, "discriminator": NET, **parts})


def denoising_gan(**parts):
    return use("denoising-gan", **{"network": NET, "discriminator": NET, **parts})


EDM = {"schedule": "edm", "times": "log-normal", "parametrization": "edm", "sampler": HEUN}
PENALIZED = {"regularizers": {"r1": "r1"}}

PLANTED = {
    # an autoencoder
    "R1 on a critic with batch norm": (
        use("autoencoder", **MLP, critic=CRITIC, **PENALIZED),
        "warned", "model.judges.critic.network", "model.regularizers=null",
    ),
    "a critic that starts after the end": (
        use("autoencoder", **MLP, critic=CRITIC, critic_start=5000), "warned", "train", "train.steps=10000"
    ),
    "one code for a whole sample": (
        use("autoencoder", **MLP, bottleneck=use("fsq", tokens=1)),
        "warned", "model.bottleneck", "model.bottleneck.tokens=8",
    ),
    "a critic that is bounded in part": (
        use("autoencoder", **MLP, critic=use(Steep)), "warned", "model.judges.critic.network", None
    ),
    # a GAN
    "R1 on DCGAN's discriminator": (
        gan(generator=DCGAN, discriminator=DCGAN, **PENALIZED),
        "warned", "model.discriminator", "model.discriminator.norm=none",
    ),
    "R1 on one of two discriminators with batch norm": (
        gan(discriminators={"a": NET, "b": CRITIC}, **PENALIZED),
        "warned", "model.discriminators.b", "model.regularizers=null",
    ),
    "a discriminator that is bounded in part": (
        gan(discriminator=use(Steep), conditioner="label"), "warned", "model.discriminator", None
    ),
    # a diffusion
    "times of another schedule": (
        diffusion(**EDM | {"times": "uniform"}), "refused", "model.times", "model.times=log-normal"
    ),
    "times at the wrong levels": (
        diffusion(**EDM | {"times": use("log-normal", mean=3.0)}), "refused", "model.times", "model.times.mean=null"
    ),
    "guidance where nothing is dropped": (
        diffusion(conditioner=UNDROPPED, guidance="cfg"),
        "refused", "model.guidance", "model.conditioner.drop=0.1",
    ),
    "noise in the steps of a flow between pairs": (
        diffusion(schedule="linear", coupling="optimal", sampler="ancestral"),
        "warned", "model.sampler", "model.sampler=ddim",
    ),
    # a denoising GAN
    "levels between the steps": (
        denoising_gan(sampler=use("heun", steps=8)),
        "refused", "model.sampler", "model.sampler={use: ancestral, steps: null}",
    ),
    "the flow of a chain": (
        denoising_gan(sampler="euler"), "refused", "model.sampler", "model.sampler={use: ancestral, steps: null}"
    ),
    "a chain that starts each step from noise": (
        denoising_gan(schedule="edm", steps=4), "refused", "model.schedule", "model.schedule=vp"
    ),
    "R1 on a critic of steps with batch norm": (
        denoising_gan(discriminator=CRITIC, **PENALIZED), "warned", "model.discriminator", "model.regularizers=null"
    ),
    # a latent
    "eps on a latent": (
        latent(parametrization="eps"), "refused", "model.prior.parametrization", "model.prior.parametrization=v"
    ),
    "x_0 with the likelihood's weight in joint training": (
        use("latent", joint=True, autoencoder=use("autoencoder", **MLP), prior=diffusion(parametrization="x0")),
        "refused", "model.prior.parametrization", "model.prior.parametrization=v",
    ),
    "guidance without conditions": (
        latent(guidance="cfg"), "refused", "model.prior.guidance", "model.prior.guidance=none"
    ),
    "two levels are one step": (
        latent(**EDM | {"parametrization": "eps", "sampler": use("heun", steps=2)}),
        "refused", "model.prior.parametrization", "model.prior.parametrization=v",
    ),
    # codes
    "guidance of codes without conditions": (
        codes("autoregressive", guidance="cfg"), "refused", "model.prior.guidance", "model.prior.guidance=none"
    ),
    "guidance of codes where nothing is dropped": (
        codes("autoregressive", guidance="cfg", conditioner=UNDROPPED),
        "refused", "model.prior.guidance", "model.prior.conditioner.drop=0.1",
    ),
    "guidance of masked codes where nothing is dropped": (
        codes("masked", guidance="cfg", conditioner=UNDROPPED),
        "refused", "model.prior.guidance", "model.prior.guidance=none",
    ),
}  # fmt: skip
"""Specs whose types fit and that are nonsense: what becomes of them, where, and an override that mends them."""


@pytest.mark.wide(1)
@pytest.mark.parametrize("name", PLANTED)
def test_planted_nonsense_is_found_with_the_override_that_mends_it(name):
    model, outcome, path, override = PLANTED[name]
    planted = spec(model)
    (found,) = examine(planted).findings
    assert (found.path, found.refused) == (path, outcome == "refused")
    if override is None:
        return
    assert override in found.overrides
    for one in found.overrides:
        mended, _ = apply(planted, [one])
        assert not check(mended).findings
    if found.refused:
        (problem,) = list_problems(check, planted)
        assert problem.startswith(f"{path}: ") and f"{found.overrides[0]}" in problem
    build(apply(planted, [override])[0])


def test_a_term_that_starts_after_its_player_s_last_turn_is_found():
    terms, players = {"r*": {"start": 4}}, {"discriminator": {"every": 3}}  # of 5 steps it plays 0 and 3
    model = gan(discriminator=use("mlp", **SMALL), **PENALIZED)
    planted = spec(model, steps=5, terms=terms, players=players)
    (found,) = examine(planted).findings
    assert found.path == "train.terms.r*" and not found.refused
    assert found.message == (
        "r1 of discriminator starts at step 4 of a stage, after the player's last turn, at step 3, so that it is never "
        "computed"
    )
    assert found.overrides == ("train.terms.r*.start=0", "train.steps=8")
    assert not examine(planted.with_value("train.terms.r*.start", 3)).findings
    stages = [{"players": ["*"]}, {"players": ["*"], "steps": 7}]
    assert not examine(spec(model, steps=5, terms=terms, players=players, stages=stages)).findings


@pytest.mark.wide
def test_a_level_of_a_cascade_is_mended_where_it_is_written():
    bottleneck = use("top-down", level=use("vq", num_codes=8, channels=2))
    encoder, decoder = use("conv", channels=[4, 8], levels=[8, 4]), use("conv", channels=[8, 4])
    autoencoder = use("autoencoder", encoder=encoder, bottleneck=bottleneck, decoder=decoder)
    cascade = use("cascade", level=diffusion(parametrization="eps"))
    found = examine(spec(use("latent", autoencoder=autoencoder, prior=cascade))).findings
    paths = [f"model.prior.level[{index}].parametrization" for index in range(2)]
    assert [finding.path for finding in found] == paths
    assert {finding.overrides for finding in found} == {("model.prior.level.parametrization=v",)}


@pytest.mark.wide
def test_what_is_refused_is_refused_before_anything_is_written(tmp_path):
    nonsense = spec(latent(parametrization="eps"))
    message = "model.prior.parametrization: .* grows .*-fold .*mend it with model.prior.parametrization=v"
    for attempt in (check, build, lambda one: modkit.train(one, tmp_path / "run")):
        with pytest.raises(SpecError, match=message):
            attempt(nonsense)
    assert not list(tmp_path.iterdir())


def test_meaning_and_form_are_reported_together():
    problems = list_problems(check, spec(latent(parametrization="eps", weights={"nothing": 1.0})))
    assert any("model.prior.parametrization: an error of the network" in one for one in problems)
    assert any("model.prior.weights.nothing: got a weight of 'nothing'" in one for one in problems)


@pytest.mark.wide
def test_a_composed_model_is_refused_when_it_is_trained(tmp_path):
    x = TensorType((1, 8, 8), (-1, 1))
    model = Latent(
        x,
        autoencoder=use("autoencoder", **MLP),
        prior=use(Diffusion, network=NET, parametrization="eps"),
    )
    data = torch.zeros(8, 1, 8, 8)
    with pytest.raises(SpecError, match="model.prior.parametrization: .*mend it with model.prior.parametrization=v"):
        modkit.fit(model, data, tmp_path / "run", steps=1, batch_size=4, device="cpu")
    assert not list(tmp_path.iterdir())
    autoencoder = Autoencoder(x, **MLP)
    given = Latent(x, autoencoder=autoencoder, prior=Diffusion(autoencoder.latents["continuous"], network=NET))
    modkit.fit(given, data, tmp_path / "run", steps=1, batch_size=4, device="cpu")


def _make_old_run(path):
    """A run as an older version made it, which refused nothing."""
    nonsense = spec(latent(parametrization="eps"))
    report = examine(nonsense)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modkit.training.train.check", examine)
        run = modkit.train(nonsense, path, steps=1)
    return nonsense, report, run


@pytest.fixture
def notices(caplog, monkeypatch):
    """What is warned of, in a process that has warned of nothing before."""
    monkeypatch.setattr(review, "_shown", set())
    caplog.set_level(logging.WARNING, "modkit")
    return lambda: [record.getMessage() for record in caplog.records if "grows" in record.getMessage()]


@pytest.mark.wide
def test_what_is_loaded_or_resumed_is_warned_of_once(tmp_path, notices):
    nonsense, report, run = _make_old_run(tmp_path / "run")
    (first,) = notices()
    assert first.startswith(f"{tmp_path / 'run'}: model.prior.parametrization: an error of the network grows")
    assert run.lock["findings"] == [str(finding) for finding in report.findings]
    for _ in range(2):
        load_run(run)
        modkit.train(nonsense, tmp_path / "run", steps=2, resume=True)
    assert notices() == [first]
    review._shown.clear()
    load_run(run, ["model.prior.sampler=ddim"])
    assert len(notices()) == 2 and "mend it" not in notices()[1]


@pytest.mark.wide
def test_weights_from_elsewhere_are_warned_of(tmp_path, notices):
    nonsense = spec(latent(parametrization="eps"))
    weights = {key: torch.ones(shape) for key, shape in examine(nonsense).state.items()}
    run = import_weights(nonsense, weights, tmp_path / "run")
    assert len(notices()) == 1 and len(Run.open(run.path).lock["findings"]) == 1


@pytest.mark.wide
def test_a_frozen_piece_is_only_warned_of(tmp_path):
    _make_old_run(tmp_path / "run")
    piece = {"path": str(tmp_path / "run"), "at": "model.prior"}
    (frozen,) = examine(spec(use("latent", autoencoder=use("autoencoder", **MLP), prior=use("run", **piece)))).findings
    assert frozen.path == "model.prior.parametrization" and not frozen.refused
    trained = use("latent", autoencoder=use("autoencoder", **MLP), prior=use("run", **piece, train=True))
    assert examine(spec(trained)).findings[0].refused


def test_what_flags_freeze_is_only_warned_of():
    model = Diffusion(TensorType((4, 8, 8)), network="mlp", parametrization="eps")
    for frozen in (False, True):
        model.requires_grad_(not frozen)
        (finding,) = (note for note in review.review_model(model) if isinstance(note, Finding))
        assert finding.refused is not frozen


def test_a_run_without_findings_has_none_in_its_lock(tmp_path):
    assert "findings" not in modkit.train(spec(diffusion()), tmp_path / "run", steps=1).lock


def test_warnings_are_shown_when_a_run_begins_and_kept_in_its_record(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(review, "_shown", set())
    planted = spec(gan(generator=DCGAN, discriminator=DCGAN, **PENALIZED))
    with caplog.at_level(logging.WARNING, "modkit"):
        run = modkit.train(planted, tmp_path / "run", steps=1)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and "r1 needs the gradient of each sample's own logit" in said[0]
    assert f"{tmp_path / 'run'}: {run.lock['findings'][0]}" == said[0]


def test_a_games_terms_are_told_with_those_who_minimise_them():
    facts = [str(fact) for fact in check(spec(gan(**PENALIZED))).facts]
    assert facts[2:] == [
        "stage 0: discriminator minimises adversarial, r1",
        "stage 0: generator minimises adversarial",
    ]


class Choosy(Gaussian):
    """A Model that is prepared with three samples or more."""

    def players(self):
        return (replace(super().players()[0], least=3),)


def test_training_samples_that_are_too_few_for_a_player_are_refused():
    for num in (2, 3):
        planted = Spec(data=use("ring", num=num, num_test=8), model=use(Choosy), train={"batch_size": 2})
        findings = [] if num == 3 else ["data: density expects at least 3 training samples, got 2"]
        assert list(map(str, examine(planted).findings)) == findings
        assert list_problems(check, planted) == findings if findings else check(planted)


@pytest.mark.parametrize("engine", ["ddp", "fsdp2", "local"])
def test_layers_across_a_batch_are_told_of_where_several_processes_train(engine):
    several = spec(gan(discriminator=use("dcgan", minibatch=2)), engine=engine)
    facts = [str(fact) for fact in check(several).facts if "own process" in str(fact)]
    told = "discriminator has layers that see the rows of their own process only: BatchNorm2d, MinibatchDiscrimination"
    assert facts == ([] if engine == "local" else [told])


class Third(DDPEngine):
    """Another package's engine of several processes."""


def test_an_engine_of_several_processes_is_known_by_what_it_says():
    layers = gan(discriminator=use("dcgan", minibatch=2))
    for several in (True, False):
        Third.several = several
        facts = [str(fact) for fact in check(spec(layers, engine=use(Third))).facts if "own process" in str(fact)]
        assert bool(facts) == several


class Normed(nn.Sequential):
    """A plug-in's critic with batch norm of a vector."""

    def __init__(self, x: TensorType, cond: CondType):
        super().__init__(nn.Flatten(), nn.Linear(x.numel, 8), nn.BatchNorm1d(8), nn.Linear(8, 1), nn.Flatten(0))

    def forward(self, x, cond):
        return super().forward(x)


NORMED = gan(generator=use("mlp", **SMALL, norm="batch"))
PACKED = gan(discriminator=use("packed", discriminator=use(Normed), num=2))


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("model", "train", "processes", "path", "overrides"),
    [
        (NORMED, {"batch_size": 1}, 1, "model.generator", ("train.batch_size=2",)),
        (NORMED, {"accumulate": 8}, 1, "model.generator", ("train.accumulate=4", "train.batch_size=16")),
        (NORMED, {"accumulate": 2}, 4, "model.generator", ("train.accumulate=1", "train.batch_size=16")),
        (
            use("latent", autoencoder=use("autoencoder", **MLP), prior=NORMED),
            {"accumulate": 8}, 1, "model.prior.generator", ("train.accumulate=4", "train.batch_size=16"),
        ),
        (PACKED, {"batch_size": 2}, 1, "model.discriminator.discriminator", ("train.batch_size=4",)),
    ],
    ids=["one row", "microbatches", "processes", "a later stage", "packs"],
)  # fmt: skip
def test_batch_norm_of_a_single_value_is_refused_with_what_mends_it(
    model, train, processes, path, overrides, tmp_path, monkeypatch
):
    """The fault: torch's own message in training, in a later stage after the earlier ones were trained."""
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    planted = spec(model, **train)
    (found,) = examine(planted).findings
    assert (found.path, found.overrides, found.refused) == (path, overrides, True)
    assert all(f"train.{name}={value}" in found.message for name, value in train.items())
    assert ("processes" in found.message) is (processes > 1)
    with pytest.raises(SpecError, match=rf"{path}: BatchNorm.d expects at least 2 values .* \(mend it with train"):
        modkit.train(planted, tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "train"),
    [
        (NORMED, {"accumulate": 4}),
        (gan(generator=DCGAN, discriminator=DCGAN), {"batch_size": 1}),
        (NORMED, {"batch_size": 1, "stages": [{"players": ["discriminator"]}]}),
        (NORMED, {"batch_size": 1, "stages": [{"players": ["*"], "steps": 0}]}),
        (PACKED, {"batch_size": 3}),
    ],
    ids=["two rows", "maps", "not trained", "no steps", "two packs"],
)
def test_batch_norm_that_is_trained_by_several_values_or_by_none_is_not_refused(model, train):
    check(spec(model, **train))


def test_synchronized_batch_norm_sees_a_row_of_each_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    for joins in (True, False):
        findings = examine(spec(NORMED, batch_size=4, device="auto", engine=use("ddp", sync_batch_norm=joins))).findings
        assert bool(findings) is not joins


def test_a_composed_model_with_batch_norm_is_not_fitted_by_single_rows(tmp_path):
    model = modkit.models.GAN(TensorType((2,)), **{key: NORMED[key] for key in ("generator", "discriminator")})
    with pytest.raises(SpecError, match=r"model\.generator: BatchNorm1d expects .* with train\.accumulate=2"):
        modkit.fit(model, torch.zeros(8, 2), tmp_path / "run", steps=1, batch_size=4, accumulate=4, device="cpu")
    assert not list(tmp_path.iterdir())


def read_split(spec, **settings):
    return [str(fact) for fact in check(spec(**settings)).facts if " own " in str(fact)]


def test_parts_across_a_batch_are_told_of_where_it_is_split():
    coupled = partial(spec, diffusion(coupling="optimal"), use("digits", size=8))
    seen = "model.coupling: optimal sees the rows of its own"
    assert read_split(coupled) == []
    assert read_split(coupled, engine="ddp") == [f"{seen} process only"]
    assert read_split(coupled, accumulate=2) == [f"{seen} microbatch only"]
    assert read_split(coupled, engine="ddp", accumulate=2) == [f"{seen} process and microbatch only"]
    given = Diffusion(TensorType((2,)), network=NET, coupling=Optimal())
    planned = plan_training(get_composition(given).plan, coupled(accumulate=2))
    told = [str(fact) for fact in check_composed(given, planned, Ring()).facts if " own " in str(fact)]
    assert told == ["model.coupling: Optimal sees the rows of its own microbatch only"]


def test_parts_that_exchange_what_they_see_are_told_of_where_batches_are_split_into_microbatches():
    aggregates = {"all": "mmd", "own": use("dip", gather=False)}
    bottleneck = use("gaussian", channels=2)
    coder = use("autoencoder", encoder="mlp", decoder="mlp", bottleneck=bottleneck, judges=aggregates)
    split = partial(spec, coder, use("digits", size=8))
    assert read_split(split, engine="ddp") == ["model.judges.own: dip sees the rows of its own process only"]
    assert read_split(split, engine="ddp", accumulate=2) == [
        "model.judges.all: mmd sees the rows of its own microbatch only",
        "model.judges.own: dip sees the rows of its own process and microbatch only",
    ]
    matched = partial(spec, gan(regularizers={"features": "feature-matching"}))
    seen = "model.regularizers.features: feature-matching sees the rows of its own microbatch only"
    assert (read_split(matched, engine="ddp"), read_split(matched, accumulate=2)) == ([], [seen])


def test_packs_are_told_of_where_they_do_not_divide_a_microbatch():
    """The fault: nothing was said, while each microbatch completed its last pack from its own rows."""
    packs = partial(spec, gan(discriminator=use("packed", num=2)))
    seen = "model.discriminator: packed sees the rows of its own microbatch only"
    torn = f"{seen}: 3, which are no multiple of the 2 that it sees together"
    assert read_split(packs, batch_size=12, accumulate=4) == [torn]
    assert read_split(packs, batch_size=12, accumulate=3) == read_split(packs, batch_size=3) == []
    alone = partial(spec, gan(discriminator=use("packed", num=1)))
    assert read_split(alone, batch_size=12, accumulate=4) == []
    made = GAN(TensorType((2,)), discriminator=Packed(TensorType((2,)), CondType(), discriminator=MLPDiscriminator))
    planned = plan_training(get_composition(made).plan, packs(batch_size=12, accumulate=4))
    told = [str(fact) for fact in check_composed(made, planned, Ring()).facts if " own " in str(fact)]
    assert told == [torn.replace("packed", "Packed")]


def test_layers_across_a_batch_are_told_of_where_batches_are_split_into_microbatches():
    layers = partial(spec, gan(discriminator=use("dcgan", minibatch=2)), accumulate=2)
    told = "discriminator has layers that see the rows of their own"
    both = "BatchNorm2d, MinibatchDiscrimination"
    assert read_split(layers) == [f"{told} microbatch only: {both}"]
    assert read_split(layers, engine="ddp") == [f"{told} process and microbatch only: {both}"]
    assert read_split(layers, engine=use("ddp", sync_batch_norm=True), device="cuda") == [
        f"{told} microbatch only: BatchNorm2d",
        f"{told} process and microbatch only: MinibatchDiscrimination",
    ]


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_batch_norm_is_not_told_of_where_it_is_synchronized(engine):
    joined = use(engine, sync_batch_norm=True)
    several = spec(gan(discriminator=use("dcgan", minibatch=2)), engine=joined, device="cuda")
    facts = [str(fact) for fact in check(several).facts if "own process" in str(fact)]
    assert facts == ["discriminator has layers that see the rows of their own process only: MinibatchDiscrimination"]
    with pytest.raises(
        SpecError, match="SyncBatchNorm computes on CUDA alone; expected `train.device` to be CUDA"
    ) as said:
        check(spec(gan(discriminator="dcgan"), engine=joined))
    assert "train.engine.sync_batch_norm=false" in str(said.value)


@pytest.mark.wide
def test_check_prints_facts_and_findings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("ldm.yaml").write_text(spec(latent(), use("digits", size=8)).to_yaml())
    text, said = command("check", "ldm.yaml")
    assert said == "" and "no problems found" in text
    assert "model: the prior is given the latent 'continuous', scaled to mean 0 and deviation 1" in text
    assert "model.prior: noise levels in deviations of the data" in text
    assert "model.prior: an error of the network is multiplied by at most " in text
    text, said = command("check", "ldm.yaml", "model.prior.guidance=cfg", status=2)
    assert "1 problem found" in text
    assert said.startswith("modkit: <override 1>:1:22: model.prior.guidance: expected a model that is also trained")
    text, _ = command("check", "ldm.yaml", "--json", "model.prior.times.use=uniform")
    told = json.loads(text)
    terms = {"autoencoder/autoencoder": ["autoencoder/nll", "autoencoder/kl"], "prior/denoiser": ["prior/denoising"]}
    assert told["findings"] == [] and told["parameters"] > 0
    assert [fact["path"] for fact in told["facts"]] == ["data", "data", "model", *["model.prior"] * 3]
    assert told["data"]["splits"] == {"train": 1437, "test": 360} and told["data"]["classes"]["labels"]["0"] == 178
    assert told["terms"] == terms


@pytest.mark.wide
def test_specs_with_nothing_to_object_to_have_no_findings():
    for model in (diffusion(), latent(**EDM), gan(), denoising_gan(), codes("masked"), use("autoencoder", **MLP)):
        assert not check(spec(model)).findings


@pytest.mark.parametrize(
    ("every", "checkpoints", "told"),
    [
        (2, {"every": 4}, []),
        (3, {"every": 4}, ["the checkpoint at step 4 has no score of its own, as a score is taken every 3 steps"]),
        (8, {"every": 4}, []),
        (3, {"every": 4, "best": "generator/adversarial"}, []),
        (3, {"every": 10}, []),
        (None, {"every": 4}, []),
    ],
)
def test_check_tells_that_checkpoints_have_no_scores_of_their_own(every, checkpoints, told):
    evaluate = {"features": "pixels", "watch": {"every": every, "num": 8}}
    settings = {"steps": 10, "batch_size": 8, "device": "cpu", "checkpoints": checkpoints}
    facts = check(Spec(model=use("gan"), data=use("ring"), train=settings, evaluate=evaluate)).facts
    assert [fact.text.split(";")[0] for fact in facts if fact.path == "evaluate.watch.every"] == told


MASKED = use("corrupted", data=use("digits", size=8), corruption="mask")
UNET = use("unet", channels=[8], blocks=1)
ENCODER = use("autoencoder", **CONV)
ENCODED = use("encoded", beside=["mask"], autoencoder=ENCODER)
GUIDE = use("diffusion", network=NET)

FRESH = {
    "model.conditioner.autoencoder": use("diffusion", network=UNET, conditioner=ENCODED),
    "model.conditioner.parts.a.autoencoder": use(
        "diffusion", network=UNET, conditioner=use("several", parts={"a": ENCODED})
    ),
    "model.guidance.guide": use("diffusion", network=NET, guidance=use("autoguidance", guide=GUIDE)),
    "model.prior.guidance.guide": use(
        "latent", autoencoder=ENCODER, prior=use("diffusion", network=NET, guidance=use("autoguidance", guide=GUIDE))
    ),
}


def find_refused(model, data=MASKED):
    findings = examine(spec(model, data)).findings
    return [one.path for one in findings if one.refused and "nothing trains its initial weights" in one.message]


@pytest.mark.parametrize("path", FRESH)
def test_a_frozen_part_with_initial_weights_is_refused(path):
    """The fault: `check` found no problem, and the model was conditioned on, or guided by, random weights."""
    model = FRESH[path]
    if "conditioner" in path:
        assert find_refused(model) == [path]
    else:
        assert find_refused(model, use("digits", size=8)) == [path]


def test_a_composed_model_with_a_frozen_part_of_initial_weights_is_refused(tmp_path):
    model = Diffusion(TensorType((2,)), network=NET, guidance=use("autoguidance", guide=GUIDE))
    with pytest.raises(
        SpecError, match=r"model\.guidance\.guide: the model diffusion is frozen here, and nothing trains"
    ):
        modkit.fit(model, torch.zeros(16, 2), tmp_path / "run", steps=1, batch_size=8, device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.wide
def test_frozen_parts_with_weights_of_their_own_are_not_refused(tmp_path):
    """Pieces of runs, objects, what a `ref` borrows, and random features, which freeze themselves."""
    digits, x = use("digits", size=8), TensorType((2,))
    modkit.train(spec(GUIDE, digits), tmp_path / "guide", steps=0)
    piece = use("run", path=str(tmp_path / "guide"))
    assert find_refused(use("diffusion", network=NET, guidance=use("autoguidance", guide=piece)), digits) == []
    guide = Diffusion(x, network=NET)
    model = Diffusion(x, network=NET, guidance=partial(modkit.find("guidance", "autoguidance").load(), guide=guide))
    modkit.fit(model, torch.zeros(16, 2), tmp_path / "run", steps=0, batch_size=8, device="cpu")
    shared = use("encoded", beside=["mask"], autoencoder={"ref": "model.autoencoder"})
    borrowed = use("latent", autoencoder=ENCODER, prior=use("diffusion", network=UNET, conditioner=shared))
    assert find_refused(borrowed) == []
    aligned = use("features", features=use("random-conv", dim=8), width=8)
    assert find_refused(use("diffusion", network=UNET, alignment=aligned), digits) == []
