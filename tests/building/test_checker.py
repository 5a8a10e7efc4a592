import json
import math

import pytest
import torch
from torch import Tensor, nn

import modkit
from modkit import CondType, Event, Latents, SpecError, TensorType, check, use
from modkit.data import Corrupted, Digits, Mask
from modkit.models import Diffusion
from modkit.models.model import Model
from modkit.models.player import Player
from modkit.specs.overrides import apply
from tests.forks import fork_python
from tests.play import MLP, SMALL, read_model, spec
from tests.processes import READ_PEAK
from tests.refusals import list_problems, refusals

HEAD = "name: toy\ndata: {use: digits, size: 8}\n"
DENOISER = use("diffusion", network=use("mlp", **SMALL), sampler=use("ddim", steps=2))


CORRUPTED = use("corrupted", data=use("digits", size=8), corruption="mask")
UNREAD = "the model leaves fields unread that these data have for it to read"


class Encoder(nn.Module):
    """Says one type, emits another."""

    def __init__(self, x: TensorType, *, says: int = 4, emits: int = 4):
        super().__init__()
        self.h = TensorType((says,))
        self.into = nn.Linear(x.numel, emits)

    def forward(self, x: Tensor) -> Tensor:
        return self.into(x.flatten(1))


class Decoder(nn.Module):
    last_layer = None

    def __init__(self, z: Event, x: TensorType, *, emits: list[int] = [1, 8, 8]):  # noqa: B006
        super().__init__()
        self.out = nn.Linear(z.numel, math.prod(emits))
        self.emits = emits

    def forward(self, z: Tensor) -> Tensor:
        return self.out(z.flatten(1)).view(-1, *self.emits)


class Network(nn.Module):
    """A denoiser that takes no conditions."""

    def __init__(self, x: TensorType, out: TensorType):
        super().__init__()
        self.out = nn.Linear(x.numel, out.numel)

    def forward(self, x, cond):
        return self.out(x.flatten(1)).view(x.shape)


class Wide(nn.Module):
    """A denoiser that emits twice the channels."""

    def __init__(self, x: TensorType, out: TensorType, cond: CondType):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x, cond):
        return self.scale * torch.cat([x, x], dim=1)


class Fragile(Network):
    """A denoiser that trips over its own shapes."""

    def __init__(self, x: TensorType, out: TensorType, cond: CondType):
        super().__init__(x, out)

    def forward(self, x, cond):
        return self.out(x.flatten(1)[:, 1:]).view(x.shape)


class Measured(nn.Module):
    """A bottleneck that needs values, as clustering does."""

    def __init__(self, h: Event):
        super().__init__()
        self.latents = {"continuous": h}

    def forward(self, h, step):
        if h.sum().item() > 0:
            h = -h
        return Latents({"continuous": h}, kl=None, losses={})

    def to_z(self, name, latent):
        return latent

    def sample(self, num, rng): ...


class Unconditional(Model):
    """A model without parts."""

    def __init__(self, x):
        super().__init__()
        self.event, self.scale = x, nn.Parameter(torch.ones(()))

    def players(self):
        return (Player("a", ()),)

    def losses(self, player, batch, step):
        return {"loss": self.scale**2}


class Vectors(Model):
    """A model whose loss is no scalar."""

    def __init__(self, x: TensorType):
        super().__init__()
        self.event = x
        self.scale = nn.Parameter(torch.ones(()))

    def players(self):
        return (Player("one", ("",)),)

    def losses(self, player, batch, step):
        return {"nll": self.scale * batch.tensor.flatten(1).sum(1), "fine": self.scale * step.wants("lazy")}


class Failing(Model):
    """A model that has a weight and a loss to weigh, but fails before it returns the loss."""

    def __init__(self, x: TensorType):
        super().__init__()
        self.event = x
        self.scale = nn.Parameter(torch.ones(()))

    def players(self):
        return (Player("one", ("",)),)

    def weights(self, player):
        return {"kl": lambda loss, step: 1.0}

    def losses(self, player, batch, step):
        raise ValueError("expected a better day")


def check_once(own):
    (problem,) = list_problems(check, own)
    raise ValueError(problem)


def test_losses_that_fail_are_the_only_problem():
    """The fault: the weights of losses that had failed were refused as well, as if nobody had such losses."""
    own = spec(use(Failing), terms={"kl": {"every": 2}}, checkpoints={"best": "one/kl"})
    with pytest.raises(ValueError, match="^model: it cannot run on its types: expected a better day[^\\n]*$"):
        check_once(own)
    with pytest.raises(SpecError, match=r"train\.players.*the pattern 'two' matches none of the players: one"):
        check(spec(use(Failing), players={"two": {}}))


@pytest.mark.smoke
def test_the_report_tells_types_parameters_players_and_terms():
    own = spec(use("latent", autoencoder=use("autoencoder", **MLP), prior=DENOISER), steps=7)
    report = check(own)
    ports = {port.path: port for port in report.ports}
    encoder, network = ports["model.autoencoder.encoder"], ports["model.prior.network"]
    facts = (encoder.kind, encoder.name, encoder.types, encoder.emits, encoder.parameters)
    assert facts == ("encoder", "mlp", {"x": "1×8×8 in [-1, 1]"}, "16 unbounded", 65 * 16)
    assert network.types == {"x": "4 unbounded", "out": "4 unbounded", "cond": "time"}
    assert ports["model.autoencoder.bottleneck"].emits == "continuous 4 unbounded"
    tops = [port for port in report.ports if port.kind == "model" and "." not in port.path]
    assert report.parameters == sum(port.parameters for port in tops)
    assert [player.name for player in report.players] == ["autoencoder/autoencoder", "prior/denoiser"]
    stages = [([player.name for player in stage.players], stage.steps) for stage in report.stages]
    assert stages == [(["autoencoder/autoencoder"], 7), (["prior/denoiser"], 7)]
    losses = {"autoencoder/autoencoder": ("autoencoder/nll", "autoencoder/kl"), "prior/denoiser": ("prior/denoising",)}
    assert report.terms == losses
    assert report.state["autoencoder.encoder.hidden.0.weight"] == (16, 64)
    assert report.state == {name: tuple(value.shape) for name, value in modkit.build(own).state_dict().items()}
    assert report.unchecked == {}


test_a_wrong_emission_is_reported_at_the_part_that_lies = refusals(
    (use("autoencoder", encoder=use(Encoder, emits=5), decoder="mlp"), "^model.encoder: .*an output of 4, got 5"),
    (use("autoencoder", encoder=use(Encoder, says=6), decoder="mlp"), "^model.encoder: .*an output of 6, got 4"),
    (
        use("autoencoder", encoder="mlp", decoder=use(Decoder, emits=[8, 8])),
        "^model.decoder: .*the decoder Decoder, built from z 4 unbounded, x 1×8×8 unbounded, declares an output of "
        "1×8×8, got 8×8$",
    ),
    (use("diffusion", network=use(Wide)), "^model.network: .*an output of 1×8×8, got 2×8×8"),
    (
        use("latent", autoencoder=use("autoencoder", **MLP), prior=use("diffusion", network=use(Wide))),
        "^model.prior.network: .*an output of 4, got 8",
    ),
    of=lambda model: check_once(spec(model)),
)


def test_a_part_that_trips_over_its_types_is_blamed_and_not_its_neighbours():
    (problem,) = list_problems(check, spec(use("diffusion", network=use(Fragile))))
    assert problem.startswith("model.network: it cannot run on its types: RuntimeError: ")


@pytest.mark.wide
def test_a_part_that_declares_no_conditions_is_refused_where_there_are_some():
    (problem,) = list_problems(check, spec(use("diffusion", network=use(Network))))
    assert "model.network: the network Network cannot be built" in problem
    assert "expected a part that takes conditions, got one without `cond` under time" in problem


def test_a_part_that_needs_values_is_trusted_and_said_to_be_unchecked():
    report = check(spec(use("autoencoder", encoder=use(Encoder), bottleneck=use(Measured), decoder="mlp")))
    assert list(report.unchecked) == ["model.bottleneck"]
    assert {port.path for port in report.ports} >= {"model.bottleneck", "model.decoder"}


def test_a_loss_that_is_no_scalar_is_refused():
    (problem,) = list_problems(check, spec(use(Vectors)))
    assert problem == "model: the loss nll of one expects a scalar, got (2,)"


test_names_and_numbers_of_training_are_held_against_the_model = refusals(
    ("{use: gan, weights: {r2: 1.0}}", "3:33: model.weights.r2: got a weight of 'r2', .*losses: adversarial"),
    (
        "{use: gan, regularizers: {r1: r1}, weights: {r1: {use: adaptive}}}",
        "3:57: model.weights.r1: .*expects a decoder with a last layer",
    ),
    (
        "gan\ntrain: {terms: {r1: {every: 16}}}",
        "4:17: train.terms.r1: the pattern 'r1' matches none of the losses: adv",
    ),
    (
        "gan\ntrain: {players: {critic: {every: 2}}}",
        "4:19: train.players.critic: .*'critic' .*: discriminator, generator",
    ),
    ("gan\ntrain: {stages: [{players: [prior/*]}]}", "4:29: train.stages.0..players.0.: .*'prior/\\*' matches none"),
    (
        "gan\ntrain: {checkpoints: {best: generator/adversaril}}",
        r"4:29: train.checkpoints.best: got 'generator/adversaril', .*\(did you mean 'generator/adversarial'",
    ),
    ("gan\ntrain: {optimizer: {use: adam, betas: [0.5]}}", "4:20: train.optimizer: .*adam expects two betas"),
    ("gan\ntrain: {lr_schedule: {use: cosine, floor: 2.0}}", "4:43: train.lr_schedule.floor: "),
    of=lambda model: check(read_model(model)),
    error=SpecError,
    start="^spec.yaml:",
)


def test_a_model_whose_prior_takes_no_latent_names_both_ends():
    model = """
  use: latent
  autoencoder: {encoder: mlp, decoder: mlp, bottleneck: {use: vq, num_codes: 8}}
  prior: {use: diffusion, network: mlp}
  at: codes
"""
    (problem,) = list_problems(check, read_model(model))
    start = "spec.yaml:6:10: model.prior: model.prior (diffusion, spec.yaml:6:10) accepts no latent of "
    assert problem.startswith(start)
    assert "model.autoencoder (autoencoder, spec.yaml:5:16): codes: " in problem


def test_a_part_inside_a_prior_that_cannot_take_the_latent_names_both_ends():
    latent = "latent, autoencoder: {encoder: mlp, decoder: mlp}"
    outer = f"{{use: {latent}, prior: {{use: diffusion, network: {{use: unet}}}}}}"
    (problem,) = list_problems(check, read_model(outer))
    assert problem.startswith("spec.yaml:3:98: model.prior.network: the network unet cannot be built from x 4 unb")
    source = "the latent 'continuous' of model.autoencoder (autoencoder, spec.yaml:3:35)"
    assert problem.endswith(f"; it is fed by {source} (what fits there: mlp)")
    inner = f"{{use: {latent}, prior: {{use: {latent}, prior: {{use: diffusion, network: unet}}}}}}"
    (problem,) = list_problems(check, read_model(inner))
    assert "model.prior.prior.network: " in problem and "of model.prior.autoencoder (autoencoder, " in problem


def test_what_gets_its_type_from_the_data_names_them():
    (problem,) = list_problems(check, read_model("{use: autoencoder, encoder: {use: conv, channels: []}}"))
    refused = "ConvEncoder expects channels of one level or more, got none"
    assert problem.endswith(f"{refused}; it is fed by data (digits, spec.yaml:2:7)")


MEASURED = f"""
import json, re, sys, time
from click.testing import CliRunner
started = time.process_time()
from modkit.cli.app import app
for path in sys.argv[1:]:
    result = CliRunner().invoke(app, ["check", path])
    print(json.dumps([result.exit_code, time.process_time() - started, {READ_PEAK}, result.output]))
    started = time.process_time()
"""


def test_what_a_logger_refuses_is_told_by_the_check():
    with pytest.raises(SpecError, match=r"train.loggers\[1\].*TensorBoard expects every to be at least 1, got 0"):
        check(spec("gan", loggers=["csv", use("tensorboard", every=0)]))


def test_a_precision_that_the_device_does_not_have_is_refused():
    assert check(spec("gan", precision="fp16"))
    with pytest.raises(SpecError, match=r"train\.precision.*tf32 expects an NVIDIA GPU.*got cpu: choose float32"):
        check(spec("gan", precision="tf32"))
    assert check(spec("gan", precision="tf32", device="auto"))  # may be trained elsewhere


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "foo"}, "train.device: expects an available device, got 'foo': Expected one of cpu, "),
        ({"device": "meta"}, "train.device: expects a device that computes, got 'meta'"),
        ({"compile": {"backend": "nope"}}, r"train.compile.backend: compile expects one of .*, got 'nope'"),
    ],
)
def test_a_device_or_backend_that_torch_does_not_know_is_told_by_the_check(settings, message):
    with pytest.raises(SpecError, match=message):
        check(spec("gan", **settings))
    assert check(spec("gan", device="cuda:7", compile={"backend": "eager"})), "trained elsewhere, perhaps"


@pytest.mark.wide
def test_checking_allocates_no_weights(tmp_path):
    parts = "{encoder: {use: conv, channels: [8, 16]}, decoder: {use: conv, channels: [16, 8]}}"
    bad, huge = tmp_path / "bad.yaml", tmp_path / "huge.yaml"
    bad.write_text(f"{HEAD}model:\n  use: latent\n  autoencoder: {{encoder: mlp, decoder: mlp}}\n  prior: diffusion\n")
    mlp = "{use: mlp, width: 24000, depth: 9}"
    huge.write_text(
        f"{HEAD}model:\n  use: latent\n  autoencoder: {parts}\n  prior: {{use: diffusion, network: {mlp}}}\n"
    )
    done = fork_python("-c", MEASURED, bad, huge, cwd=tmp_path)
    (status, seconds, peak, message), (good, more, highest, report) = map(json.loads, done.stdout.splitlines())
    print(f"no latent taken: {seconds:.2f} s of CPU, {peak / 2**10:.0f} MB")
    print(f"10 billion parameters: {more:.2f} s more, {highest / 2**10:.0f} MB")
    assert status == 2
    assert f"{bad}:6:10: model.prior.network: " in message.replace("\n", "")
    assert f"model.autoencoder (autoencoder, {bad}:5:16)" in message.replace("\n", "")
    assert good == 0, report
    assert int(report.split("; ")[-2].removesuffix(" parameters").replace(",", "")) > 10**10
    assert max(peak, highest) < 1.5 * 2**20


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            use("autoencoder", **MLP),
            f"model.conditioner: {UNREAD}: masked, mask; expected a conditioner that reads them, such as "
            "model.conditioner=map",
        ),
        (
            use("autoencoder", **MLP, input="masked"),
            f"model.conditioner: {UNREAD}: mask; expected the conditioner to read them as well",
        ),
        (
            use(Unconditional),
            f"data: {UNREAD}: masked, mask; expected data without them, or a model with a conditioner, which "
            "Unconditional does not have",
        ),
        (
            use("latent", autoencoder=use("autoencoder", **MLP), prior=DENOISER),
            f"model.prior.conditioner: {UNREAD}: masked, mask; expected a conditioner that reads them, such as "
            "model.prior.conditioner=map",
        ),
        (
            use("gan", conditioner=use("map", maps=["masked"])),
            f"model.conditioner: {UNREAD}: mask; expected the conditioner to read them as well",
        ),
    ],
)
def test_fields_of_a_corruption_that_nothing_reads_are_refused_with_what_mends_it(model, message):
    wrong = spec(model, CORRUPTED)
    with pytest.raises(SpecError) as refused:
        check(wrong)
    assert str(refused.value) == message
    if "=map" in message:
        check(apply(wrong, [message.rpartition(" ")[2]])[0])
    check(spec("autoencoder"))  # labels may be left unread


@pytest.mark.wide
def test_fit_refuses_fields_of_a_corruption_that_nothing_reads(tmp_path):
    data = Corrupted(data=lambda: Digits(size=8), corruption=Mask)
    model = Diffusion(data.x, fields=data.fields, network="mlp")
    with pytest.raises(SpecError, match=f"model.conditioner: {UNREAD}: masked, mask; .* model.conditioner=map"):
        modkit.fit(model, data, tmp_path / "run", steps=1)
    assert not (tmp_path / "run").exists()
    reading = Diffusion(data.x, fields=data.fields, network="mlp", conditioner="map")
    modkit.fit(reading, data, tmp_path / "run", steps=1, batch_size=4, device="cpu")


def test_a_run_that_leaves_such_fields_unread_still_loads(tmp_path, monkeypatch):
    wrong = spec(use("autoencoder", **MLP), CORRUPTED, steps=1)
    with monkeypatch.context() as before:
        before.setattr("modkit.building.checker._check_conditions", lambda *_: None)
        run = modkit.train(wrong, tmp_path / "run")
    assert modkit.load(run).sample(2, seed=0).shape == (2, 1, 8, 8)
