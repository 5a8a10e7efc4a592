"""Several processes train what one does; those of a test share the processor, and each system is small."""

import re
import shutil

import pytest
import torch
from torch import distributed as dist

from modkit import Spec, use
from modkit.building.plan import plan
from modkit.engines.ddp import DDPEngine
from modkit.engines.fsdp2 import FSDP2Engine
from modkit.engines.local import LocalEngine
from modkit.engines.processes import check_processes, choose_engine, make_engine
from modkit.runs import checkpoint as store
from modkit.specs.overrides import apply
from modkit.specs.settings import Settings
from tests.engines.systems import HALF, STEPS, SYSTEMS, launch, measure_difference, read_rows, train
from tests.refusals import check_refusal

ONES = [name for name in SYSTEMS if "!" not in name and name != "dcgan"]
DIVIDED = [
    "dcgan",
    "vae, two stages",
    "gan-r1, accumulated",
    "gan-r1, overflowing",
    "vqgan-adaptive",
    "ldm-unet",
    "codes",
    "own conditions",
]
REPEATED = ("vqgan", "ddgan", "d2gan", "vq-ema, accumulated")
"""Systems that exchange what `vqgan-adaptive`, `gan-r1`, `vq-ema` and `gan-r1, accumulated` do: with `--full` alone."""


ASKED = ("vq-ema", "gan-r1", "gan-r1, accumulated", "gan-r1, overflowing", "labels", "own conditions")
"""Systems of the tests that are not drawn."""


def choose(names, request):
    """Those of the names that the session's tests ask for."""
    here = [item for item in request.session.items if item.path == request.path and not item.get_closest_marker("skip")]
    asked = {item.callspec.params.get("name", "") for item in here if hasattr(item, "callspec")}
    asked |= {*ASKED, *(name.partition("!")[0] for name in asked)}
    return [name for name in names if name in asked]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, request):
    """A run of each system by one process."""
    out = tmp_path_factory.mktemp("alone")
    for name in choose(ONES, request):
        train(name, out / name)
    return out


@pytest.fixture(scope="module")
def together(tmp_path_factory, alone, request):
    """A run of each system by two processes, and one by two that went on with what one had begun."""
    out = tmp_path_factory.mktemp("together")
    for name in ("vq-ema", "gan-r1"):
        shutil.copytree(alone / name, out / f"{name}+resumed")
        shutil.rmtree(out / f"{name}+resumed" / "checkpoints" / f"step-{STEPS:08d}")
    shutil.copytree(out / "gan-r1+resumed", out / "gan-r1@+resumed")
    divided = [f"{name}@" for name in choose(DIVIDED, request)]
    told = launch(out, [*choose(SYSTEMS, request), "vq-ema+resumed", "gan-r1+resumed", *divided, "gan-r1@+resumed"], 2)
    assert all(text.endswith("status 0") for text in told), told
    return out


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.full] if name in REPEATED else []) for name in ONES]
)
def test_two_processes_train_what_one_does(name, alone, together):
    assert measure_difference(alone / name, together / name) < 1e-8


def test_an_overflow_in_one_process_is_a_step_that_all_skip(alone, together):
    skipped = []
    for run in (alone / "gan-r1, overflowing", together / "gan-r1, overflowing", together / "gan-r1, overflowing@"):
        players = store.load(run / "checkpoints" / f"step-{STEPS:08d}").state["players"]
        assert sorted(one["loss_scale"]["value"] for one in players.values()) == [2.0**15, 2.0**16]
        skipped.append({name: one["skipped"] for name, one in players.items()})
    assert skipped[0] == skipped[1] == skipped[2] and 2 < sum(skipped[0].values()) < STEPS


def test_processes_share_pictures_and_scores_during_training(alone, together):
    mine, theirs = alone / "labels", together / "labels"
    (picture,) = (mine / "samples").iterdir()
    assert picture.read_bytes() == (theirs / "samples" / picture.name).read_bytes()
    scores = read_rows(mine, "scores")
    assert len(scores) == 2
    for one, other in zip(scores, read_rows(theirs, "scores"), strict=True):
        assert other == pytest.approx(one, rel=1e-6)  # samples are measured in float32


def test_conditions_of_a_package_s_own_reach_every_process(alone, together):
    """`Cond.own`, merged with a label's vector, and in the halves of guidance when pictures are drawn."""
    mine = alone / "own conditions"
    (picture,) = (mine / "samples").iterdir()
    for theirs in (together / "own conditions", together / "own conditions@"):
        assert measure_difference(mine, theirs) < 1e-8
        assert picture.read_bytes() == (theirs / "samples" / picture.name).read_bytes()
        steps = [theirs / "checkpoints" / f"step-{step:08d}" for step in (HALF, STEPS)]
        half, last = (store.load(step).tensors["model"] for step in steps)
        (maps,) = (name for name in last if name.endswith("map.maps.weight"))
        assert (half[maps] - last[maps]).abs().amax(1).gt(1e-6).sum() > 5  # classes whose maps are trained


@pytest.mark.wide(2)
@pytest.mark.parametrize("name", [name for name in SYSTEMS if "!" in name])
def test_leaving_out_one_total_is_noticed(name, alone, together):
    assert measure_difference(alone / name.partition("!")[0], together / name) > 1e-8


@pytest.mark.parametrize("name", ["vq-ema", "gan-r1"])
def test_two_processes_go_on_with_what_one_has_begun(name, alone, together):
    assert measure_difference(alone / name, together / f"{name}+resumed") < 1e-8


@pytest.mark.wide(2)
@pytest.mark.parametrize("name", DIVIDED)
def test_divided_weights_train_as_whole_ones_do(name, together):
    assert measure_difference(together / name, together / f"{name}@") < 1e-8


def test_what_whole_weights_began_goes_on_with_divided_ones_and_back(alone, together, tmp_path):
    assert measure_difference(alone / "gan-r1", together / "gan-r1@+resumed") < 1e-8
    back = shutil.copytree(together / "gan-r1, accumulated@", tmp_path / "back")
    shutil.rmtree(back / "checkpoints" / f"step-{STEPS:08d}")
    train("gan-r1, accumulated", back)
    assert measure_difference(alone / "gan-r1, accumulated", back) < 1e-8


@pytest.mark.full
def test_four_processes_begin_and_one_goes_on(alone, tmp_path, request):
    names = [name for name in choose(ONES, request) if name != "vqgan-adaptive"]
    told = launch(tmp_path, names, 4)
    assert all(text.endswith("status 0") for text in told), told
    for name in names:
        assert measure_difference(alone / name, tmp_path / name) < 1e-8
        if "overflowing" in name:  # at a step of the process, which is another once a run goes on
            continue
        shutil.rmtree(tmp_path / name / "checkpoints" / f"step-{STEPS:08d}")
        train(name, tmp_path / name)
        assert measure_difference(alone / name, tmp_path / name) < 1e-8


def test_a_parameter_without_a_gradient_is_named_in_every_process(tmp_path):
    told = launch(tmp_path, ["idle"], 2)
    named = "the losses of autoencoder give no gradient to decoder.idle; expected one for every parameter"
    assert all(named in text and text.endswith("status 1") for text in told), told


@pytest.mark.parametrize("engine", [DDPEngine, FSDP2Engine])
def test_a_launcher_is_expected(engine, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    check_refusal(f"{engine.__name__} expects a launcher to set RANK", engine, "cpu")


OPTIONS = {"timeout": 77.0, "unused": True}


@pytest.mark.parametrize(
    ("given", "again", "one", "two"),
    [
        (None, False, None, use("ddp")),
        (OPTIONS, False, OPTIONS, use("ddp", **OPTIONS)),
        (use("fsdp2", **OPTIONS), False, use("fsdp2", **OPTIONS), use("fsdp2", **OPTIONS)),
        ("local", False, "local", "local"),
        ("local", True, "local", use("ddp")),
        (use("local", **OPTIONS), True, use("local", **OPTIONS), use("ddp", **OPTIONS)),  # by overrides of a run's spec
        (use("ddp", **OPTIONS), True, use("ddp", **OPTIONS), use("ddp", **OPTIONS)),
        (use("fsdp2", **OPTIONS), True, use("fsdp2", **OPTIONS), use("fsdp2", **OPTIONS)),
    ],
)
def test_the_engine_of_a_spec_follows_the_number_of_processes(given, again, one, two, monkeypatch):
    spec = Spec(name="toy", model=use("gan"), train={} if given is None else {"engine": given})
    for launched, engine in (("1", one), ("2", two)):
        monkeypatch.setenv("WORLD_SIZE", launched)
        assert choose_engine(spec, again=again).train.get("engine") == engine


def test_options_on_the_command_line_are_those_of_the_engine_of_several_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    toy = Spec(name="toy", data="ring", model=use("gan"))
    spec, _ = apply(toy, ["train.engine.timeout=60", "train.engine.unused=true"])
    engine = plan(choose_engine(spec)).resolved.at("train.engine")
    assert engine == use("ddp", timeout=60, unused=True, sync_batch_norm=False)
    wrong, _ = apply(toy, ["train.engine.unsued=true"])
    message = "<override 1>:1:1: train.engine.unsued: got an unknown key 'unsued', expected one of: timeout"
    check_refusal(message, plan, choose_engine(wrong))


@pytest.mark.parametrize(("several", "again"), [(True, True), (False, True), (True, False)])
def test_one_process_goes_on_without_the_engine_of_several(several, again, monkeypatch):
    made = Several()
    engine = make_engine(lambda device: made, "cpu", several=several, again=again)
    assert isinstance(engine, LocalEngine) if several and again else engine is made
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert make_engine(lambda device: made, "cpu", several=several, again=again) is made


@pytest.mark.parametrize(
    ("timeout", "wanted"),
    [
        (0, "in"),
        (-1.0, "in"),
        (float("inf"), "finite and in"),
        (float("nan"), "finite and in"),
    ],
)
def test_a_wait_is_finite(monkeypatch, timeout, wanted):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    message = re.escape(f"DDPEngine expects timeout to be {wanted} [1, 1e+06] (seconds), got {timeout}")
    check_refusal(message, DDPEngine, "cpu", timeout=timeout)


def test_the_answer_of_a_poll_is_read_at_the_next_one(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        engine = DDPEngine("cpu")
        assert [engine.poll(flag) for flag in (False, True, True, False, False)] == [False, False, True, True, False]
        assert engine.agree(True) and not engine.agree(False)
        engine.close(None)
    finally:
        dist.destroy_process_group()


class Several:
    rank, world, device = 0, 4, torch.device("cpu")


def test_processes_and_batches_are_checked(monkeypatch):
    check_refusal("spans 4 processes, but a launcher has started only 1", check_processes, Several(), Settings())
    monkeypatch.setenv("WORLD_SIZE", "8")
    message = "8 processes were started, but this engine spans only 4, so each would train its own copy: set `train.e"
    check_refusal(message, check_processes, Several(), Settings())
    monkeypatch.setenv("WORLD_SIZE", "4")
    check_processes(Several(), Settings(batch_size=16, accumulate=2))
    wrong = Settings(batch_size=12, accumulate=2)
    check_refusal("the number of processes times accumulate, 4 · 2, got 12", check_processes, Several(), wrong)
