from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
import torch

import modkit
from modkit import Rng
from modkit.building.builder import Site
from modkit.building.plan import plan
from modkit.data.loader import read_in_order
from modkit.metrics import Cost
from modkit.models.model import reconstruct_batch
from tests.forks import fork_python

EXAMPLES = Path(__file__).parents[1] / "examples"
SPECS = sorted(EXAMPLES.glob("*.yaml"))
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
SMALL = ["train.batch_size=32", "train.samples.num=2"]  # what has no say in whether an example holds together

OFFLINE = """
import runpy, socket, sys

def refuse(*arguments):
    raise OSError(f"an example opened a connection: {arguments}")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(autouse=True)
def offline(monkeypatch, clothes):
    def refuse(*arguments, **keywords):
        if isinstance(arguments[0], socket.socket) and arguments[0].family == socket.AF_UNIX:
            return connect(*arguments)  # to a process of this machine
        raise OSError(f"an example opened a connection: {arguments}")

    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_there_is_an_example_of_each_system():
    systems = "dcgan ddpm gan-ring gmm-prior latent-gan ldm ldm-class two-stage-vae vae vae-2d vq-ldm"
    systems += " vqgan d2gan-ring ddgan vqvae maskgit vqvae2 ldm-tokens inpainting lsgm"
    systems += " autoencoder denoising-autoencoder conditional-vae beta-vae-sprites iwae flow-2d"
    systems += " contractive-autoencoder vae-gan"
    systems += " ddgan-25-gaussians latent-ddgan super-resolution-ldm ldm-diffusers minimax-gan-ring ac-gan"
    systems += " minibatch-gan wgan-gp r3gan stylegan2-ada pacgan-grid veegan-grid dit flow-matching-ring ldm-fashion"
    assert {path.stem for path in SPECS} >= set(systems.split())
    assert {path.stem for path in SCRIPTS} >= {"hybrid", "local_part"}


def test_the_readme_of_the_folder_names_what_is_there():
    links = re.findall(r"\]\(([^)#]+)", (EXAMPLES / "README.md").read_text(encoding="utf-8"))
    assert [link for link in links if not (EXAMPLES / link).exists()] == []
    folders = [path for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert {path.name for path in (*SCRIPTS, *folders)} <= set(links)


@pytest.mark.parametrize("path", [*SPECS, *SCRIPTS], ids=lambda path: path.name)
def test_no_example_is_over_40_lines(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_spec_bears_the_name_of_its_file_and_reads_back(path):
    spec = modkit.load_spec(path)
    assert spec.name == path.stem
    assert modkit.Spec.from_yaml(spec.to_yaml()) == spec


@pytest.mark.wide(5)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' use of numpy
@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_spec_checks_trains_samples_and_reloads(path, tmp_path, monkeypatch):
    monkeypatch.setitem(Cost.__init__.__wrapped__.__kwdefaults__, "batch_size", 4)
    spec = modkit.load_spec(path, SMALL)
    if spec.evaluate:
        spec = spec.with_value("evaluate.num", 32)
    report = modkit.check(spec)
    assert report.unchecked == {}
    before = modkit.build(spec).state_dict()

    run = modkit.train(spec, tmp_path / "run", steps=2)
    model = modkit.load(run)
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    for player in (player for player in model.players() if player.start < 2):
        assert any(name.startswith(player.modules) for name in moved) or not player.modules, (
            f"{player.name} stood still"
        )
    assert run.status == "finished"
    assert list(run.samples.iterdir())

    x = _make(model, spec)
    assert x.shape == (3, *report.x.shape)
    assert bool(x.isfinite().all())
    assert not torch.equal(x[0], x[1])
    if report.x.range is not None:
        low, high = report.x.range
        assert low <= float(x.min()) <= float(x.max()) <= high
    assert torch.equal(x, _make(modkit.load(run.path), spec))


def _make(model, spec):
    """Samples or, of a model without a prior, reconstructions."""
    try:
        return model.sample(3, seed=0)
    except ValueError as refusal:
        assert "no prior" in str(refusal)
        held = next(read_in_order(Site(plan(spec), meta=False).data, "test", 3, Rng(0)))
        with torch.no_grad():
            return reconstruct_batch(model.eval(), held)


@pytest.mark.wide
def test_ldm_class_samples_what_is_asked_for():
    prior = modkit.build(modkit.load_spec(EXAMPLES / "ldm-class.yaml")).prior
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in prior.parameters():  # its last layers start at zero
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    three, five = prior.sample(2, seed=0, labels=3), prior.sample(2, seed=0, labels=5)
    assert not torch.allclose(three, five, atol=1e-3)
    torch.testing.assert_close(prior.sample(2, seed=0, labels=[5, 3])[1], three[1])


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("hybrid", r"(?P<out>\S+): samples \(64, 1, 16, 16\) of mean -?\d\.\d\d and std \d\.\d\d\n"),
        ("local_part", r"(?P<out>\S+) \(64, 1, 16, 16\)\n"),
    ],
)
def test_a_script_trains_and_prints_its_result(script, said, tmp_path):
    command = ("-W", "error", "-c", OFFLINE, EXAMPLES / f"{script}.py", "--steps", 2, "--out", tmp_path / "run")
    ran = fork_python(*command, cwd=tmp_path)
    assert re.fullmatch(said, ran.stdout)["out"] == str(tmp_path / "run")
    assert modkit.Run.open(tmp_path / "run").status == "finished"


def test_the_latents_of_the_local_part_are_on_the_sphere(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import local_part

    z = modkit.build(local_part.SPEC).autoencoder.encode(torch.zeros(2, 1, 16, 16), "continuous")
    torch.testing.assert_close(z.norm(dim=1), torch.ones(2))
