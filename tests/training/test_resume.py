"""Stopping and going on: a resumed run has the bytes of one that was never stopped."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import modkit
from modkit import Run, Spec, SpecError, use
from modkit.cli.app import app
from modkit.engines.local import LocalEngine
from modkit.losses.likelihoods import MSE
from modkit.publishing.export import export
from modkit.runs import checkpoint as store
from modkit.runs import verified
from modkit.training import interruption
from modkit.training.callbacks import Callbacks
from tests.play import Notes, spec
from tests.run_folders import contents, differing
from tests.runs.format_1 import rewrite

EVERY = {"log": {"every": 1}, "samples": {"every": 2, "num": 4}, "checkpoints": {"every": 1, "keep": 100}}
MLP = use("mlp", width=8, depth=1)
DROPPING = use("mlp", width=8, depth=1, dropout=0.2)
DDIM = use("ddim", steps=2)
GAUSSIAN = use("gaussian", channels=2)
VAE = spec(use("autoencoder", encoder=MLP, bottleneck=GAUSSIAN, decoder=MLP), batch_size=16, ema=0.9, **EVERY)
CONV = use("conv", channels=[8], dropout=0.2)
CONV_VAE = spec(
    use("autoencoder", encoder=CONV, bottleneck=GAUSSIAN, decoder=CONV),
    accumulate=2,
    clip=0.5,
    precision="bf16",
    channels_last=True,
    lr_schedule=use("cosine", warmup=1),
    **EVERY,
)
NET = use("dcgan", channels=8)
DCGAN = spec(
    use("gan", generator=NET, discriminator=NET, regularizers={"r1": "r1"}, conditioner="label", z_dim=4),
    steps=5,
    ema=0.5,
    optimizer=use("adam", betas=[0.5, 0.9]),
    players={"discriminator": {"optimizer": use("rmsprop", lr=1e-3)}, "generator": {"every": 2}},
    terms={"r1": {"every": 3}},
    **{**EVERY, "log": {"every": 2}},
)
VQGAN = use(
    "autoencoder",
    encoder=MLP,
    bottleneck=use("vq", num_codes=4, channels=2, codebook="ema"),
    decoder=MLP,
    critic=use("mlp", width=8, depth=1, spectral_norm=True),
    critic_start=1,
)
PRIOR = use("diffusion", network=DROPPING, conditioner=use("label", drop=0.3), guidance="cfg", sampler=DDIM)
LDM = spec(
    use("latent", autoencoder=VQGAN, prior=PRIOR),
    steps=3,
    batch_size=240,
    accumulate=2,
    clip=0.5,
    lr_schedule=use("cosine", warmup=1),
    **EVERY,
)


def vary(spec: Spec, values: Mapping[str, Any]) -> Spec:
    for path, value in values.items():
        spec = spec.with_value(path, value)
    return spec


SYSTEMS = {
    "vae": CONV_VAE,
    "gan": DCGAN,
    "ldm": LDM,
    "ldm-gradient": vary(
        LDM, {"model.autoencoder.bottleneck.codebook": "gradient", "train.ema": {"std": 0.2, "every": 2}}
    ),
    "no-ema": vary(LDM, {"train.steps": 2, "train.ema": 0}),
    "workers": vary(VAE, {"train.steps": 3, "train.workers": 1}),
}


def trained(spec: Spec, out: Path, **options: Any) -> Path:
    return modkit.train(spec, out, **options).path


def stopped_at(name: str, run: Path, out: Path) -> Path:
    """A copy of a run as it would be, had it been killed some time after that checkpoint and before the next."""
    shutil.copytree(run, out)
    (out / "status.json").unlink()
    for later in [*(out / "checkpoints").iterdir(), *(out / "samples").iterdir()]:
        if later.stem > name:
            shutil.rmtree(later) if later.is_dir() else later.unlink()
    for file in ("metrics.jsonl", "timing.jsonl"):
        with (out / file).open("ab") as lines:
            lines.write(b'{"stage": 0, "st')
    return out


def resumed_from_each(spec: Spec, folder: Path, **options: Any) -> None:
    whole = trained(spec, folder / "whole", **options)
    drawn = modkit.load(whole).sample(4, seed=0)
    *earlier, last = store.list_names(whole / "checkpoints")
    assert len(earlier) >= 3
    for name in earlier:
        run = trained(spec, stopped_at(name, whole, folder / name), resume=True, **options)
        assert not differing(run, whole), f"resumed from {name}"
        assert torch.equal(modkit.load(run).sample(4, seed=0), drawn)


@pytest.mark.wide(1)
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_run_resumed_from_any_of_its_checkpoints_equals_the_one_never_stopped(system: str, tmp_path: Path):
    resumed_from_each(SYSTEMS[system], tmp_path)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling a network on the CPU needs a C++ compiler")
def test_a_compiled_run_resumed_equals_the_one_never_stopped(tmp_path: Path):
    compiled = spec(use("diffusion", network=DROPPING, sampler=DDIM), steps=3, batch_size=16, compile=True, **EVERY)
    whole = trained(compiled, tmp_path / "whole")
    torch.compiler.reset()
    run = trained(compiled, stopped_at("step-00000002", whole, tmp_path / "run"), resume=True)
    assert not differing(run, whole)


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.wide(1)
@pytest.mark.parametrize("train", [False, True])
def test_a_run_with_a_piece_of_another_resumes(train: bool, tmp_path: Path):
    source = trained(VAE, tmp_path / "source", steps=1)
    prior = use("diffusion", network=MLP, sampler=DDIM)
    latent = use("latent", autoencoder=use("run", path=str(source), train=train), prior=prior)
    resumed_from_each(spec(latent, steps=3, batch_size=240, **EVERY), tmp_path)
    piece, whole = modkit.load(source), tmp_path / "whole"
    shutil.rmtree(source)
    kept = modkit.load(whole).autoencoder.state_dict()
    same = [torch.equal(value, kept[name]) for name, value in piece.state_dict().items()]
    frozen = [path.stat().st_size for path in (whole / "checkpoints").glob("frozen-*")]
    assert len(frozen) == (0 if train else 1) and all(size > 4 * count(piece) for size in frozen)
    branched = modkit.branch(whole, tmp_path / "branch", ["train.optimizer.lr=1e-4"], step=2)
    exported = export(Run.open(whole), tmp_path / "export")
    assert len(list(branched.checkpoints.glob("frozen-*"))) == len(frozen)
    assert modkit.load(branched).state_dict().keys() == modkit.load(exported).state_dict().keys()
    assert all(torch.equal(v, kept[k]) for k, v in modkit.load(exported).autoencoder.state_dict().items())
    assert not any(same) if train else all(same)


@pytest.mark.wide
def test_a_latent_that_is_trained_on_resumes_and_measures_its_scale_again(tmp_path: Path):
    latent = use("latent", autoencoder=VAE.model, prior=use("diffusion", network=MLP, sampler=DDIM))
    source = trained(spec(latent, steps=1, batch_size=240, ema=0.0), tmp_path / "source")
    piece = use("run", path=str(source), train=True)
    resumed_from_each(spec(piece, steps=2, batch_size=240, ema=0.0, **EVERY), tmp_path)
    stds = [Run.open(tmp_path / one).load_weights()["std_0"] for one in ("source", "whole")]
    assert stds[1] > 0 and stds[0] != stds[1]


@pytest.mark.wide
def test_a_piece_that_is_trained_in_a_later_stage_is_not_prepared_anew(tmp_path: Path):
    coded = use("autoencoder", encoder=MLP, bottleneck=use("vq", num_codes=4, channels=2), decoder=MLP)
    source = trained(spec(coded, batch_size=64, ema=0.0), tmp_path / "source", steps=2)
    latent = use("latent", autoencoder=use("run", path=str(source), train=True), prior=use("autoregressive"))
    stages = [{"players": ["prior/*"]}, {"players": ["autoencoder/*"], "steps": 1}]
    later = spec(latent, steps=2, batch_size=64, ema=0.0, stages=stages, **EVERY)
    resumed_from_each(later, tmp_path)
    branched = modkit.branch(tmp_path / "whole", tmp_path / "branch", step=1)
    weights = branched.load_weights()
    assert all(torch.equal(value, weights[key]) for key, value in Run.open(tmp_path / "whole").load_weights().items())


@pytest.mark.wide
def test_a_checkpoint_of_format_1_is_resumed(tmp_path: Path):
    whole = trained(DCGAN, tmp_path / "whole")
    run = stopped_at("step-00000002", whole, tmp_path / "run")
    rewrite(run / "checkpoints" / "step-00000002")
    assert torch.equal(
        modkit.load(run).sample(4, seed=0), modkit.load(whole, checkpoint="step-00000002").sample(4, seed=0)
    )
    trained(DCGAN, run, resume=True)
    assert {str(Path(name).parent) for name in differing(run, whole)} == {"checkpoints/step-00000002"}


def test_a_resumed_run_reads_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, read, check = trained(VAE, tmp_path), [], verified._check
    monkeypatch.setattr(verified, "_check", lambda path, *rest: read.append(str(path)) or check(path, *rest))
    modkit.resume(run, ["train.steps=6", "train.log.every=2"])
    last = run / "checkpoints" / "step-00000004"
    assert sorted(read) == sorted(str(path) for path in last.iterdir() if path.name != "manifest.json")


@pytest.mark.smoke
def test_a_finished_run_with_more_steps_goes_on_and_equals_the_one_never_stopped(tmp_path: Path):
    longer = vary(VAE, {"train.steps": 8, "train.checkpoints": {"every": 2, "keep": 2}})
    whole = trained(longer, tmp_path / "whole")
    run = trained(longer, tmp_path / "run", steps=4)
    assert Run.open(run).finished
    assert [row["step"] for row in Run.open(run).read_metrics()] == [1, 2, 3, 4]
    trained(longer, run, steps=6, resume=True)
    assert [row["step"] for row in Run.open(run).read_metrics()] == [1, 2, 3, 4, 5, 6]
    trained(longer, run, resume=True)
    assert not differing(run, whole)


@pytest.mark.wide
def test_more_steps_go_on_in_the_last_stage(tmp_path: Path):
    run = trained(LDM, tmp_path, steps=1)
    trained(LDM, tmp_path, steps=2, resume=True)
    assert [(row["stage"], row["step"]) for row in Run.open(run).read_metrics()] == [(0, 1), (1, 2), (1, 3)]


def test_resume_starts_where_there_is_no_checkpoint(tmp_path: Path):
    whole = trained(VAE, tmp_path / "whole", resume=True)
    run = trained(VAE, tmp_path / "run", steps=0)
    shutil.rmtree(run / "checkpoints")
    assert not differing(trained(VAE, run, resume=True), whole)


@pytest.mark.parametrize("change", ["model.decoder.width=9", "data.size=16", "train.seed=1"])
def test_another_system_is_not_resumed(change: str, tmp_path: Path):
    run = trained(VAE, tmp_path, steps=1)
    before = contents(run)
    with pytest.raises(SpecError, match=rf"{change.partition('=')[0]}: got .* in a run that has trained with"):
        modkit.resume(run, [change])
    assert contents(run) == before


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a flipped bit": lambda path: flip(path / "model.safetensors"),
    "a torn file": lambda path: (path / "state.json").write_bytes(b'{"cursor"'),
    "a missing file": lambda path: (path / "optimizer-autoencoder.safetensors").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(damage: str, tmp_path: Path):
    whole = trained(VAE, tmp_path / "whole")
    run = shutil.copytree(whole, tmp_path / "run")
    DAMAGES[damage](run / "checkpoints" / "step-00000004")
    left = os.listdir(run / "checkpoints" / "step-00000004")
    notes = Notes()
    trained(VAE, run, resume=True, progress=notes)
    assert notes.texts[-2:] == [  # after those of the data
        "step-00000004 is damaged and was renamed to damaged-step-00000004",
        f"resumed from {run / 'checkpoints/step-00000003'}",
    ]
    assert {Path(name).parts[1] for name in differing(run, whole)} == {"damaged-step-00000004"}
    aside = run / "checkpoints" / "damaged-step-00000004"
    assert sorted(path.name for path in aside.iterdir()) == sorted(left)
    assert (aside / "ema.safetensors").read_bytes() == (
        whole / "checkpoints/step-00000004/ema.safetensors"
    ).read_bytes()
    DAMAGES[damage](run / "checkpoints" / "step-00000004")
    trained(VAE, run, resume=True)
    assert aside.with_name("damaged-step-00000004-2").is_dir()


def test_with_every_checkpoint_damaged_nothing_is_resumed_or_changed(tmp_path: Path):
    run = trained(vary(VAE, {"train.checkpoints.keep": 2}), tmp_path)
    for number, path in enumerate((run / "checkpoints").iterdir()):
        flip(path / "optimizer-autoencoder.safetensors") if number else (path / "manifest.json").unlink()
    before = contents(run)
    with pytest.raises(
        ValueError, match=r"no intact checkpoint: step-00000004: .*; step-00000003: .*manifest"
    ) as error:
        modkit.resume(run)
    assert "optimizer-autoencoder.safetensors is damaged" in str(error.value)
    assert contents(run) == before


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_a_file_that_cannot_be_opened_is_no_damage(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, opened = trained(VAE, tmp_path), os.open
    before = contents(run)

    def fail(path: Any, *args: Any, **kwargs: Any) -> int:
        if str(path).endswith("step-00000004/model.safetensors"):
            raise OSError(code, os.strerror(code), str(path))
        return opened(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        for act in (lambda: trained(VAE, run, resume=True), lambda: modkit.load(run)):
            with pytest.raises(OSError, match=rf"{os.strerror(code)}: .*step-00000004/model.safetensors"):
                act()
    assert contents(run) == before
    trained(VAE, run, resume=True)
    assert contents(run) == before


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "timing.jsonl", "samples", "checkpoints", "checkpoints/step-00000003"]
)
def test_nothing_is_written_through_a_link_in_a_run(name: str, tmp_path: Path):
    run = trained(vary(VAE, {"train.checkpoints": {"every": 1, "keep": 2}}), tmp_path / "run")
    (run / name).rename(tmp_path / "elsewhere")
    (run / name).symlink_to(tmp_path / "elsewhere")
    before = contents(tmp_path)
    for act in (lambda: modkit.resume(run, ["train.steps=5"]), lambda: trained(VAE, run, overwrite=True)):
        with pytest.raises(ValueError, match=f"{name} is a link, through which nothing is written"):
            act()
    if name == "samples":
        assert "samples is a link" in command("sample", run, "-n", "2").output
    assert contents(tmp_path) == before
    if "checkpoints" in name:
        assert modkit.load(run)


@pytest.mark.wide
def test_of_two_trainings_in_a_folder_the_second_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    longer, children, told = vary(VAE, {"train.steps": 6}), [], Callbacks.checkpoint_saved

    def compete(callbacks: Callbacks, path: Path) -> None:
        told(callbacks, path)
        if path.name == "step-00000003" and not children:
            before = contents(run)
            for option in ("resume", "overwrite"):
                with pytest.raises(ValueError, match="run is being written by another process: wait until it ends, or"):
                    trained(longer, run, **{option: True})
            assert contents(run) == before
            children.append(os.fork())  # as a process that loads data, which may outlive its parent
            if not children[0]:
                signal.pause()

    run = tmp_path / "run"
    monkeypatch.setattr(Callbacks, "checkpoint_saved", compete)
    trained(longer, run)
    try:
        assert not differing(run, trained(longer, tmp_path / "alone"))
        trained(VAE, run, overwrite=True)
        assert not differing(run, trained(VAE, tmp_path / "other"))
    finally:
        os.kill(children[0], signal.SIGKILL)
        os.waitpid(children[0], 0)


@pytest.mark.wide(2)
@pytest.mark.parametrize("event", ["step_done", "samples_ready", "checkpoint_saved"])
@pytest.mark.parametrize("moved", [True, False])
def test_a_run_that_goes_away_while_it_trains_is_an_error(
    event: str, moved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def take_away(callbacks: Callbacks, *_: Any) -> None:
        if (run / "samples").exists():
            run.rename(tmp_path / "moved")
            if not moved:
                shutil.rmtree(tmp_path / "moved", ignore_errors=True)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Callbacks, event, take_away)
        with pytest.raises(
            FileNotFoundError, match="run was removed, moved or replaced while this process wrote to it"
        ):
            trained(VAE, run)
    assert not run.exists()
    if moved:
        trained(VAE, tmp_path / "moved", resume=True)
        assert not differing(tmp_path / "moved", trained(VAE, tmp_path / "whole"))


def test_metrics_that_were_changed_are_noticed_before_a_run_is_resumed(tmp_path: Path):
    run = trained(VAE, tmp_path)
    flip(run / "metrics.jsonl")
    data = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(data.replace(b'"step": 1', b'"step": 7'))
    before = contents(run)
    with pytest.raises(ValueError, match=r"metrics.jsonl was changed: its first \d+ bytes are not the rows"):
        trained(VAE, run, resume=True)
    assert contents(run) == before


def test_a_checkpoint_of_another_run_is_not_taken_for_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run, other = trained(VAE, tmp_path / "run"), trained(vary(VAE, {"train.seed": 1}), tmp_path / "other")
    drawn = modkit.load(run, checkpoint="step-00000003").sample(2, seed=0)
    shutil.rmtree(run / "checkpoints" / "step-00000004")
    shutil.copytree(other / "checkpoints" / "step-00000004", run / "checkpoints" / "step-00000004")
    assert torch.equal(modkit.load(run).sample(2, seed=0), drawn)
    assert "step-00000004 is damaged (it belongs to the run" in caplog.text
    with pytest.raises(ValueError, match="it belongs to the run .*, this is the run"):
        modkit.load(run, checkpoint="step-00000004")


def test_a_resumed_run_says_that_the_number_of_threads_has_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run, threads = trained(VAE, tmp_path), torch.get_num_threads()
    trained(VAE, run, resume=True)
    assert not caplog.text
    torch.set_num_threads(threads + 1)
    try:
        trained(VAE, run, resume=True)
    finally:
        torch.set_num_threads(threads)
    said = f"was begun with {threads} threads in stage 0, now {threads + 1}: it may differ in the last bits"
    assert said in caplog.text and f"train.threads={threads} gives" in caplog.text


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Arms Ctrl-C: pressed in the optimizer's n-th step, so many times, and never again."""
    step = LocalEngine.step
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it

    def arm(at: int, times: int = 1) -> None:
        count = iter(range(1, 1000))

        def stepping(engine: LocalEngine, *args: Any) -> None:
            step(engine, *args)
            if next(count) == at:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(LocalEngine, "step", stepping)

    yield arm
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "vae.yaml"
    checkpoints = {"every": 2, "keep": 1, "best": "autoencoder/nll"}
    path.write_text(vary(VAE, {"train.checkpoints": checkpoints}).to_yaml())
    return str(path)


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_ctrl_c_saves_at_the_next_border_of_steps_and_says_how_to_go_on(file: str, tmp_path: Path, interrupt):
    change = "model.decoder={use: mlp, width: 4}"
    assert command("train", file, change, "--out", tmp_path / "whole").exit_code == 0
    run = tmp_path / "run"
    interrupt(3)
    result = command("train", file, change, "--out", run)
    assert result.exit_code == 0
    said, going_on = result.output.splitlines()[-1].split("; resume with: ")
    assert said == "modkit: stopped at step 3"
    assert store.find_latest(run / "checkpoints") == run / "checkpoints" / "step-00000003"
    assert not Run.open(run).finished
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert command(*shlex.split(going_on)[1:]).exit_code == 0
    assert not differing(run, tmp_path / "whole")


def test_a_second_ctrl_c_acts_at_once(file: str, tmp_path: Path, interrupt, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interruption, "_BURST", -1.0)  # as if it came later
    interrupt(3, times=2)
    assert command("train", file, "--out", tmp_path / "run").exit_code == 1
    assert store.find_latest(tmp_path / "run" / "checkpoints") == tmp_path / "run" / "checkpoints" / "step-00000002"


def test_a_loss_that_is_no_number_stops_and_names_the_last_good_checkpoint(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, nll, count = tmp_path / "run", MSE.nll, iter(range(1000))
    with monkeypatch.context() as patch:
        patch.setattr(MSE, "nll", lambda self, out, x: nll(self, out, x) * (torch.nan if next(count) == 4 else 1))
        result = command("train", file, "--out", run)
    assert result.exit_code == 1
    good = run / "checkpoints" / "step-00000002"
    assert f"the loss nll of autoencoder is nan at step 3 (step 3 of stage 0); the last good checkpoint is {good}" in (
        result.output
    )
    assert all(value.isfinite().all() for group in store.load(good).tensors.values() for value in group.values())
    assert command("train", file, "--out", run, "--resume").exit_code == 0
    assert not differing(run, trained(Spec.from_yaml(Path(file).read_text()), tmp_path / "whole"))


def test_weights_that_are_no_numbers_are_not_saved(file: str, tmp_path: Path):
    result = command("train", file, "train.optimizer.lr=1e39", "train.checkpoints.every=1", "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "a weight of autoencoder is not finite at step 1" in result.output
    assert store.list_names(tmp_path / "run" / "checkpoints") == ["step-00000000"]


def test_a_finished_run_ends_at_once_and_is_left_as_it_is(file: str, tmp_path: Path):
    run = tmp_path / "run"
    command("train", file, "--out", run)
    before = {path: (path.read_bytes(), path.stat().st_ino) for path in run.rglob("*.*") if path.is_file()}
    result = command("train", file, "--out", run, "--resume")
    assert result.exit_code == 0
    after = {path: (path.read_bytes(), path.stat().st_ino) for path in run.rglob("*.*") if path.is_file()}
    assert after.keys() == before.keys()
    assert [path.name for path in after if after[path] != before[path]] in ([], ["status.json"])


def test_an_out_that_holds_a_run_is_refused_without_a_flag(file: str, tmp_path: Path):
    run = trained(VAE, tmp_path / "run", steps=1)
    before = contents(run)
    result = command("train", file, "--out", run)
    assert result.exit_code == 2
    assert "--resume" in result.output and "--overwrite" in result.output
    assert command("train", file, "--out", run, "--resume", "--overwrite").exit_code == 2
    assert contents(run) == before
    assert command("train", file, "--out", run, "--overwrite").exit_code == 0
    assert not differing(run, trained(Spec.from_yaml(Path(file).read_text()), tmp_path / "whole"))
    assert json.loads((run / "status.json").read_text()) == {"status": "finished"}


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_more_steps_have_the_rates_of_the_longer_schedule(schedule: str, tmp_path: Path):
    """The step that follows the former end as well, at which the former schedule gives zero."""
    longer = vary(VAE, {"train.steps": 8, "train.lr_schedule": schedule, "train.optimizer.lr": 0.01})
    whole, run = trained(longer, tmp_path / "whole"), trained(longer, tmp_path / "run", steps=4)

    def read_groups(run: Path, step: int) -> Any:
        state = store.load(run / "checkpoints" / f"step-{step:08d}").state["players"]["autoencoder"]
        return state["lr_schedule"], state["optimizer"]["groups"]

    assert read_groups(run, 4)[1][0]["lr"] == 0
    trained(longer, run, resume=True)
    assert [read_groups(run, step) for step in (5, 8)] == [read_groups(whole, step) for step in (5, 8)]
    begun, after = (
        store.load(run / "checkpoints" / f"step-0000000{step}").tensors["model"]["decoder.out.weight"]
        for step in (4, 5)
    )
    assert (after - begun).abs().max() > 1e-4
