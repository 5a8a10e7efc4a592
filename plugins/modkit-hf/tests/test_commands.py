"""The commands in processes of their own, as a user starts them."""

import pytest

import modkit
from modkit import train
from tests.play import VAE, spec
from tests.processes import run_python

from .loopback import TOKEN, serve

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

LIST = """
import sys
from modkit.cli.app import main

sys.argv = ["modkit", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end
assert "modkit_hf" in sys.modules and not {"torch", "datasets", "huggingface_hub"} & {*sys.modules}
"""


@pytest.mark.parametrize("words", ["list data", "push --help"])
def test_what_needs_no_hub_imports_none(words):
    assert run_python("-c", LIST, *words.split()).stdout


@pytest.mark.wide
def test_a_run_goes_to_the_hub_of_the_environment_and_back(tmp_path):
    made = train(spec(VAE), tmp_path / "vae", steps=1)
    with serve() as hub:
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        run_python("-m", "modkit", "push", made.path, "me/vae", "--license", "mit", **own)
        said = run_python("-m", "modkit", "pull", "me/vae", tmp_path / "here", **own).stdout
        run_python("-m", "modkit", "sample", "hf://me/vae", "-n", 2, "--out", tmp_path / "two.npy", **own)
    assert said == f"pulled: hf://me/vae@{hub.repos['me/vae'].branches['main']}, run: {tmp_path / 'here'}\n"
    assert modkit.load(tmp_path / "here").sample(2, seed=0).equal(modkit.load(made).sample(2, seed=0))
    assert (tmp_path / "two.npy").exists()
