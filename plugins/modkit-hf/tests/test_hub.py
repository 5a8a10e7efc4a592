"""Runs to the Hub and back, by huggingface_hub's own client, over a server on this machine."""

import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch

import modkit
from modkit import Spec, SpecError, train, use
from modkit.building.checker import check
from modkit.cli.app import app
from modkit.evaluation.report import Report
from modkit.publishing.export import export
from modkit.runs.encoding import dump_manifest, parse_manifest
from modkit.runs.files import hash_data
from modkit.runs.run import Run
from modkit.types import Score
from tests.command import run as run_own
from tests.play import MLP, VAE, spec

from .loopback import TOKEN, serve

hub_package = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # httpx, of how its client uploads
WHOLE = ["README.md", "evaluation.json", "manifest.json", "model.safetensors", "modkit.lock"]
WHOLE += ["samples/step-00000001.png", "spec.yaml", "state.json"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = train(spec(VAE), tmp_path_factory.mktemp("runs") / "vae", steps=1)
    Report({"FD (pixels)": Score(1.25, 0.5, "lower")}, checkpoint="step-00000001", counts={"fake": 9}, seed=3).save(
        made.path
    )
    return made


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The server, with huggingface_hub's cache and tokens in folders of the test."""
    from huggingface_hub import constants

    with serve() as served:
        for name, value in {
            "ENDPOINT": served.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": f"{served.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
            "HF_HUB_DISABLE_XET": True,  # a protocol of other servers
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_PROGRESS_BARS": True,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.chdir(tmp_path)
        yield served


def run_command(name, *arguments, status=0):
    """Runs `modkit NAME ARGUMENTS` as `tests.command.run` does; this plug-in's commands are hooked on for this call."""
    from modkit_hf import modkit_commands

    before = dict(app.commands)
    modkit_commands(app)
    try:
        return run_own(name, *arguments, status=status)
    finally:
        app.commands = before


@pytest.fixture
def pushed(hub, run):
    """The address of the run on the server, and of its commit."""
    said = run_command("push", run.path, "me/vae", "--license", "mit")[0]
    address = re.match(r"pushed: (hf://me/vae@[0-9a-f]{40}), ", said)[1]
    hub.asked.clear()
    return address


def compose(path):
    return spec(use("autoencoder", encoder=use("run", path=path, at="model.encoder"), decoder=MLP["decoder"]))


def test_a_run_comes_back_the_same_to_the_bit(hub, run, pushed, tmp_path):
    want = modkit.load(run).sample(5, seed=0)
    assert modkit.load("hf://me/vae").sample(5, seed=0).equal(want)
    assert run_command("pull", "me/vae@main", "here/vae")[0] == f"pulled: {pushed}, run: here/vae\n"
    assert modkit.load("here/vae").sample(5, seed=0).equal(want)
    files = sorted(path.relative_to("here/vae").as_posix() for path in Path("here/vae").rglob("*") if path.is_file())
    assert files == WHOLE and not any(path.is_symlink() for path in Path("here/vae").rglob("*"))
    assert sorted(name for name in hub.read("me/vae") if name != ".gitattributes") == WHOLE
    run_command("sample", "hf://me/vae", "-n", 2, "--out", "two.npy")
    assert {entry.name for entry in tmp_path.iterdir()} == {"cache", "here", "two.npy"}


def test_an_exported_run_keeps_what_its_author_wrote_and_loses_what_could_run(hub, run, tmp_path, caplog):
    out = export(run, tmp_path / "out")
    text = (out / "README.md").read_text().replace("# license: to be chosen", "license: mit  #")
    (out / "README.md").write_text(f"{text}\nTrained on a rainy day.\n")
    for name in ("weights.pt", "evil.py", "parts/mine.py", "samples/evil.sh"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("raise SystemExit(9)")
    run_command("push", out, "me/vae")
    assert "left behind: evil.py, parts/mine.py, samples/evil.sh, weights.pt" in caplog.text
    card = hub.read("me/vae")["README.md"].decode()
    assert "license: mit" in card and "Trained on a rainy day." in card
    assert {*hub.read("me/vae")} == {*WHOLE, ".gitattributes"}


def test_what_could_run_is_left_on_the_hub_and_said(hub, pushed, caplog):
    files = {**hub.read("me/vae"), "evil.py": b"raise SystemExit(9)", "w.bin": b"cos\nsystem"}
    hub.repos["me/vae"].commit("main", files)
    run_command("pull", "me/vae", "here")
    assert "only safetensors, text and pictures travel; left behind: evil.py, w.bin" in caplog.text
    assert not [path for path in Path().rglob("*") if path.suffix in (".py", ".bin")]
    assert not any(re.search(r"resolve/.*(evil|w\.bin)", line) for line in hub.asked)
    hub.repos["me/vae"].commit("main", {**files, "samples/../../x.png": b""})
    assert "cannot contain a '..'" in run_command("pull", "me/vae", "there", status=2)[1]
    assert not Path("there").exists() and not [*Path().rglob("x.png")]


def test_the_card_has_license_data_scores_and_pictures(hub, pushed):
    from huggingface_hub import ModelCard

    card = ModelCard(hub.read("me/vae")["README.md"].decode())
    assert (card.data.license, card.data.library_name, card.data.datasets) == ("mit", "modkit", ["digits"])
    assert "autoencoder" in card.data.tags and card.data.pipeline_tag == "unconditional-image-generation"
    (result,) = card.data.eval_results
    assert (result.metric_name, result.metric_value, result.dataset_type) == ("FD (pixels)", 1.25, "digits")
    assert "![samples](samples/step-00000001.png)" in card.text and 'modkit.load("hf://me/vae")' in card.text


@pytest.mark.wide
def test_another_push_replaces_the_run_and_keeps_the_rest_and_the_former_commit(hub, run, pushed, tmp_path):
    old = hub.read("me/vae")
    hub.repos["me/vae"].commit("main", {**old, "LICENSE": b"MIT", "samples/old.png": b"", "evaluations/old.json": b""})
    other = train(spec(VAE, seed=3), tmp_path / "other", steps=1)
    said = run_command("push", other.path, "me/vae", "--revision", "second")[0]
    now = hub.read("me/vae", "second")
    assert {*now} == {*old, "LICENSE"} - {"evaluation.json"} and now["LICENSE"] == b"MIT"
    assert now["model.safetensors"] != old["model.safetensors"] and "samples/old.png" in hub.read("me/vae")
    want, first = (modkit.load(one).sample(2, seed=0) for one in (other, pushed))
    assert modkit.load("hf://me/vae@second").sample(2, seed=0).equal(want) and not first.equal(want)
    assert hub.repos["me/vae"].branches["second"] in said and "license: unknown" in now["README.md"].decode()


@pytest.mark.wide
def test_a_check_downloads_nothing_and_a_run_keeps_the_commit(hub, run, pushed, tmp_path):
    with pytest.raises(SpecError, match=r"hf://me/vae@main is not on this machine; .*: modkit pull me/vae@main"):
        check(compose("hf://me/vae"))
    assert hub.asked == [] and not (tmp_path / "cache").exists()
    run_command("pull", "me/vae@main")
    hub.asked.clear()
    made = train(compose("hf://me/vae"), tmp_path / "own", steps=1)
    assert made.lock["addresses"] == {"model.encoder": pushed}
    assert Spec.from_yaml(made.spec_text).model["encoder"]["path"] == pushed
    weights, before = made.load_weights(), modkit.load(run).state_dict()
    frozen = [name for name in weights if name.startswith("encoder.")]
    assert frozen and all(torch.equal(weights[name], before[name]) for name in frozen)
    run_command("push", train(spec(VAE, seed=3), tmp_path / "other", steps=1).path, "me/vae")
    assert train(compose("hf://me/vae"), tmp_path / "again", steps=0).lock["addresses"] == {"model.encoder": pushed}
    assert not any(line.startswith("GET") and "resolve" in line for line in hub.asked)
    run_command("pull", "me/vae")
    fresh = train(compose("hf://me/vae"), tmp_path / "fresh", steps=0).lock["addresses"]["model.encoder"]
    assert fresh != pushed and check(compose(pushed)) and modkit.load(made) is not None


def test_a_commit_that_is_here_needs_no_hub(hub, pushed, monkeypatch):
    modkit.load("hf://me/vae")
    hub.fault = "down"
    hub.asked.clear()
    modkit.load(pushed)
    assert hub.asked == []
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        modkit.load("hf://me/vae")
        assert hub.asked == []
    with pytest.raises(OSError, match=r"hf://me/vae@main cannot be downloaded: the Hub answers 500"):
        modkit.load("hf://me/vae")


@pytest.mark.parametrize(
    "token, address, status, said",
    [
        ("hf_wrong", "me/vae", 2, r"the Hub expects a token with access to it, got none or one that is not valid"),
        ("", "me/hidden", 2, r"expects a token .* set HF_TOKEN or run `hf auth login`"),
        (TOKEN, "me/vea", 2, r"http://127\S+ has no model me/vea that you may read"),
        (TOKEN, "me/gated", 2, r"its authors have not granted you access; ask at http\S+/me/gated"),
        (TOKEN, "me/vae@v2", 2, "me/vae has no revision v2"),
        (TOKEN, "me/other", 2, "expects a run that `modkit push` wrote, got files without modkit.lock, spec.yaml"),
    ],
)
def test_what_the_hub_refuses_is_said_in_a_sentence(hub, pushed, monkeypatch, token, address, status, said):
    monkeypatch.setenv("HF_TOKEN", token)
    hub.repos["me/hidden"], hub.repos["me/other"] = (type(hub.repos["me/vae"])(private) for private in (True, False))
    hub.repos["me/gated"] = hub.repos["me/vae"]
    hub.gated.add("me/gated")
    hub.repos["me/other"].commit("main", {"weights.bin": b"cos\nsystem"})
    text = run_command("pull", address, "here", status=status)[1]
    assert re.search(said, text) and text.count("\n") == 1 and not Path("here").exists()


@pytest.mark.wide
def test_a_push_without_the_right_to_it_is_refused(hub, run, pushed, monkeypatch):
    before = hub.read("me/vae")
    for token, said in {"hf_wrong": "expects a token", "hf_reader": "your token does not have the right to"}.items():
        monkeypatch.setenv("HF_TOKEN", token)
        assert said in run_command("push", run.path, "me/vae", status=2)[1]
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    said = run_command("push", run.path, "me/vae", "--private", status=2)[1]
    assert "cannot be pushed as private: the repository is public, see http://" in said
    said = run_command("push", run.path, "me/new", "--license", "mine", status=2)[1]
    assert """the Hub does not accept its card: "license" must be one of ('mit',""" in said
    assert "me/new" not in hub.repos and hub.read("me/vae") == before
    run_command("push", run.path, "me/new", "--private")
    assert hub.repos["me/new"].private


@pytest.mark.wide
def test_the_token_may_lie_in_the_store_of_huggingface_hub(hub, run, pushed, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    assert "expects a token" in run_command("push", run.path, "me/vae", status=2)[1]
    (tmp_path / "token").write_text(TOKEN)
    run_command("push", run.path, "me/vae")


@pytest.mark.wide
def test_a_download_that_is_cut_or_changed_is_refused_and_may_be_repeated(hub, run, pushed):
    for fault, status, said in (
        ("cut", 1, r"hf://me/vae@main cannot be downloaded: the exchange with http\S+ failed: \w+"),
        ("changed", 2, r"hf://me/vae@main is damaged on the Hub or was on its way: .*model.safetensors is damaged"),
    ):
        hub.fault = fault
        text = run_command("pull", "me/vae", "here", status=status)[1]
        assert re.search(said, text) and not Path("here").exists()
        hub.fault = None
        with pytest.raises(SpecError, match="modkit pull me/vae@main"):
            check(compose("hf://me/vae"))
    run_command("pull", "me/vae", "here")
    assert modkit.load("here").sample(2, seed=0).equal(modkit.load(run).sample(2, seed=0))


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_a_pickle_in_place_of_the_weights_is_refused_though_the_hashes_are_its_own(hub, pushed):
    files, data = hub.read("me/vae"), pickle.dumps(Evil())
    manifest = parse_manifest(files["manifest.json"])
    entry = manifest.files["model.safetensors"]._replace(size=len(data), sha256=hash_data(data))
    signed = dump_manifest(manifest._replace(files={**manifest.files, "model.safetensors": entry}))
    evil = {"model.safetensors": data, "manifest.json": signed}
    hub.repos["me/vae"].commit("main", {**files, **evil})
    said = run_command("pull", "me/vae", "here", status=2)[1]
    assert "it is not a safetensors file" in said and not Path("ran").exists() and not Path("here").exists()


def test_a_server_that_is_not_there_is_said(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "the exchange with http://127.0.0.1:9 failed: ConnectError" in run_command("pull", "me/vae", status=1)[1]


def test_a_folder_that_is_taken_is_refused_before_anything_is_asked(hub, pushed):
    Path("here").mkdir()
    Path("here/mine").write_text("")
    assert (
        "pull expects a folder that is absent or empty, got here" in run_command("pull", "me/vae", "here", status=2)[1]
    )
    assert hub.asked == []


@pytest.mark.wide
def test_pushing_a_run_without_checkpoint_or_a_pulled_one(hub, run, pushed, tmp_path):
    run_command("pull", "me/vae", "here")
    run_command("push", "here", "me/copy")
    assert hub.read("me/copy")["model.safetensors"] == hub.read("me/vae")["model.safetensors"]
    shutil.copytree(run.path, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "checkpoints")
    assert "has no checkpoint" in run_command("push", "bare", "me/bare", status=2)[1] and "me/bare" not in hub.repos
    assert Run.open("here").exported
