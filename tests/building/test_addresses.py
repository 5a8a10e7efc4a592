"""Addresses of runs, with a plug-in's scheme whose store is a folder: `acme://NAME@VERSION`."""

import shutil
from pathlib import Path

import pytest
import torch

import modkit
from modkit import Spec, SpecError, load, sample_run, train, use
from modkit.building.addresses import locate, open_run
from modkit.building.checker import check
from modkit.parts.registry import get_registry
from modkit.publishing.export import export
from modkit.runs.run import Run
from modkit.sweeps.sweep import sweep
from tests.command import run as run_command
from tests.play import MLP, VAE, spec
from tests.plugin_factory import make_plugin

PLUGIN = """
    from modkit.part import hookimpl

    @hookimpl
    def modkit_schemes():
        return {"acme": "store_of_acme:locate"}
"""
STORE = """
import os, shutil
from pathlib import Path

def locate(address, *, download):
    name, _, version = address.removeprefix("acme://").partition("@")
    far, here = Path(os.environ["ACME_FAR"]), Path(os.environ["ACME_HERE"])
    if version in ("", "newest"):
        listed = [path.name for path in (far if download else here).glob(f"{name}@*")]
        version = max(listed, default="@newest").partition("@")[2]
    folder = f"{name}@{version}"
    if download and not (here / folder).exists():
        shutil.copytree(far / folder, here / folder)
    if not (here / folder).exists():
        raise ValueError(f"{address} is not on this machine; download it with: acme get {folder}")
    return here / folder, f"acme://{folder}"
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(spec(VAE), tmp_path_factory.mktemp("runs") / "vae", steps=1)


@pytest.fixture
def store(run, site, tmp_path, monkeypatch):
    """The plug-in's far store with one run, and its folder on this machine, which is empty."""
    for name in ("far", "here"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"ACME_{name.upper()}", str(tmp_path / name))
    make_plugin(site, "acme", PLUGIN)
    (site / "store_of_acme.py").write_text(STORE)
    get_registry.cache_clear()
    export(run, tmp_path / "far" / "vae@1")
    return tmp_path


def compose(path):
    return spec(use("autoencoder", encoder=use("run", path=path, at="model.encoder"), decoder=MLP["decoder"]))


def test_what_reads_a_run_reads_an_address(run, store):
    want = load(run).sample(3, seed=0)
    assert torch.equal(load("acme://vae").sample(3, seed=0), want)
    assert torch.equal(sample_run("acme://vae@1", num=3).x, sample_run(run, num=3).x)
    assert load(export("acme://vae", store / "out")).sample(3, seed=0).equal(want)
    assert open_run(run) is run and open_run(str(run.path)).path == run.path
    assert locate("acme://vae", download=False) == (store / "here" / "vae@1", "acme://vae@1")
    assert (
        run_command("sample", "acme://vae", "-n", 3, "--out", store / "x.npy")[0] == f"3 samples: {store / 'x.npy'}\n"
    )


def test_a_spec_is_checked_without_a_download_and_its_run_keeps_the_pinned_address(store):
    with pytest.raises(SpecError, match=r"model.encoder: .*acme://vae is not on this machine.* acme get vae@newest"):
        check(compose("acme://vae"))
    assert not any((store / "here").iterdir())
    load("acme://vae@1")
    made = train(compose("acme://vae"), store / "own", steps=1)
    assert made.lock["addresses"] == {"model.encoder": "acme://vae@1"}
    resolved = Spec.from_yaml(made.spec_text)
    assert resolved.model["encoder"]["path"] == "acme://vae@1"
    shutil.copytree(store / "here" / "vae@1", store / "here" / "vae@2")
    check(compose("acme://vae"))
    assert Spec.from_yaml(train(resolved, store / "again", steps=0).spec_text) == resolved  # not of version 2
    shutil.rmtree(store / "here")
    assert load(export(made, store / "out")).sample(2, seed=0).equal(load(made).sample(2, seed=0))
    assert train(compose("acme://vae"), made.path, steps=2, resume=True).finished


def test_the_trials_of_a_sweep_keep_the_address(store):
    load("acme://vae")
    swept = sweep(compose("acme://vae"), ["seed=0"], store / "sweep", steps=0)
    (one,) = (Path(store / "sweep" / "runs")).iterdir()
    assert swept and Run.open(one).lock["addresses"] == {"model.encoder": "acme://vae@1"}


def test_what_writes_into_a_run_and_what_has_no_scheme_is_refused(store):
    message = "Run.open expects the directory of a run, got the address acme://vae: download it first"
    assert message in run_command("evaluate", "acme://vae", status=2)[1]
    assert "sample expects --out for acme://vae" in run_command("sample", "acme://vae", status=2)[1]
    with pytest.raises(ValueError, match="unknown scheme 'acm'; did you mean 'acme'"):
        modkit.load("acm://vae")
    assert not any((store / "here").iterdir()) and not list(Path().glob("acm*"))
