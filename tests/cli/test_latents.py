"""`modkit latent`: each view as a file, and what it refuses."""

import re

import numpy as np
import pytest
from PIL import Image

from modkit import train, use
from tests.command import run
from tests.play import MLP, spec


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latent")
    models = {
        "plane": use("autoencoder", **MLP, bottleneck=use("gaussian", channels=2)),
        "plain": use(
            "autoencoder", encoder=use("mlp", width=4, depth=1), decoder=MLP["decoder"], bottleneck="identity"
        ),
        "codes": use("autoencoder", **MLP, bottleneck=use("fsq", levels=[3, 3])),
        "gan": use("gan", **{one: use("mlp", width=8, depth=1) for one in ("generator", "discriminator")}, z_dim=2),
    }
    small = {"generator": use("stylegan2", channels=2, style=4), "discriminator": use("mlp", width=8, depth=1)}
    models["styled"] = use("gan", **small, z_dim=2)
    for name, model in models.items():
        train(spec(model, steps=1), folder / name)
    few = use("stacked", data=use("digits", size=8), num=16, num_test=3)
    train(spec(models["gan"], few, steps=1), folder / "few")
    train(spec(use("gan", **small, z_dim=2, conditioner="label"), few, steps=1), folder / "labelled")
    denoising = use("autoencoder", **MLP, input="noisy", bottleneck=use("gaussian", channels=2))
    noisy = use("corrupted", data=use("digits", size=8), corruption="noise")
    train(
        spec(use("latent", autoencoder=denoising, prior=use("diffusion", network="mlp")), noisy, steps=1),
        folder / "denoising",
    )
    return folder


@pytest.mark.wide(1)
@pytest.mark.parametrize("view", ["manifold", "encode", "traverse", "interpolate", "reconstruct"])
def test_each_view_is_written_into_the_run(view, runs):
    text, _ = run("latent", runs / "plane", f"--{view}")
    path = runs / "plane" / "samples" / f"latent-{view}.png"
    assert text == f"{view}: {path}\n"
    with Image.open(path) as picture:
        assert min(picture.size) > 50


@pytest.mark.wide(1)
@pytest.mark.parametrize("view", ["encode", "traverse", "interpolate", "reconstruct"])
def test_a_denoising_model_below_a_prior_has_each_view(view, runs, tmp_path):
    run("latent", runs / "denoising", f"--{view}", "--out", tmp_path / "view.png")
    with Image.open(tmp_path / "view.png") as picture:
        assert min(picture.size) > 50


def test_options_say_what_is_drawn(runs, tmp_path):
    out = tmp_path / "rows.svg"
    run("latent", runs / "plane", "--traverse", "--steps", 5, "--first", 3, "--span", 2, "--out", out)
    assert "<image" in out.read_text()
    names = {}
    for path in ("linear", "spherical"):
        names[path] = tmp_path / f"{path}.png"
        run("latent", runs / "plane", "--interpolate", "-n", 2, "--path", path, "--out", names[path])
    assert names["linear"].read_bytes() != names["spherical"].read_bytes()


def test_the_latent_of_a_plain_autoencoder_is_scaled_to_where_its_codes_lie(runs, tmp_path):
    run("latent", runs / "plain", "--traverse", "--out", tmp_path / "rows.png")
    assert (tmp_path / "rows.png").stat().st_size > 100


def test_a_plain_autoencoder_s_projections_begin_at_its_encodings(runs, tmp_path):
    run("latent", runs / "plain", "--project", "-n", 2, "--iterations", 0, "--out", tmp_path / "begun.png")
    run("latent", runs / "plain", "--reconstruct", "-n", 2, "--out", tmp_path / "pairs.png")
    assert (tmp_path / "begun.png").read_bytes() == (tmp_path / "pairs.png").read_bytes()


@pytest.mark.parametrize("view", ["interpolate", "project"])
def test_the_styles_of_a_generator_are_shown_by_name(view, runs, tmp_path):
    pictures = []
    for name in ("z", "w"):
        run(
            "latent",
            runs / "styled",
            f"--{view}",
            "-n",
            2,
            "--latent",
            name,
            "--iterations",
            2,
            "--out",
            tmp_path / "a.png",
        )
        pictures.append((tmp_path / "a.png").read_bytes())
    assert pictures[0] != pictures[1]


@pytest.mark.parametrize("view", ["manifold", "traverse", "interpolate", "arithmetic", "project"])
def test_the_noise_of_a_gan_is_shown_as_a_latent_is(view, runs, tmp_path):
    few = {"arithmetic": ("-n", 1), "project": ("--iterations", 2, "-n", 2)}.get(view, ("-n", 2))
    options = ("--features", "classifier:digits") if view == "project" else ()
    run("latent", runs / "gan", f"--{view}", *few, *options, "--out", tmp_path / "a.png")
    run("latent", runs / "gan", f"--{view}", *few, *options, "--out", tmp_path / "b.png", "--seed", 1)
    with Image.open(tmp_path / "a.png") as picture:
        assert min(picture.size) > 15
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes() or view == "manifold"


def test_means_of_classes_are_a_row_and_arithmetic_has_four(runs, tmp_path):
    run("latent", runs / "plane", "--arithmetic", "--out", tmp_path / "means.png")
    run("latent", runs / "plane", "--arithmetic", "--classes", "3,1,7", "-n", 5, "--out", tmp_path / "rows.png")
    with Image.open(tmp_path / "means.png") as means, Image.open(tmp_path / "rows.png") as rows:
        assert means.width > 8 * means.height and 1.3 < rows.width / rows.height < 1.7


@pytest.mark.parametrize(
    ("name", "view", "latent"),
    [
        ("few", "manifold", "z"),
        ("few", "interpolate", "z"),
        ("labelled", "manifold", "z"),
        ("labelled", "traverse", "z"),
        ("labelled", "interpolate", "w"),
    ],
)
def test_draws_are_not_limited_by_the_number_of_test_samples(name, view, latent, runs, tmp_path):
    """The fault: as many test samples were read, of which there are 3, whether a model is given their fields or not."""
    options = (f"--{view}", "--latent", latent, "--steps", 3, "-n", 2)
    run("latent", runs / name, *options, "--first", 5, "--out", tmp_path / "a.png")
    run("latent", runs / name, *options, "--first", 2, "--out", tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes() or view == "manifold"


def test_a_conditional_model_is_shown_without_test_samples(tmp_path):
    """The fault: a division by their number."""
    for name, values in {"x": np.zeros((8, 1, 8, 8), np.uint8), "labels": np.arange(8)}.items():
        np.save(tmp_path / f"{name}.npy", values)
    fields = {"labels": str(tmp_path / "labels.npy")}
    data = use("array", path=str(tmp_path / "x.npy"), fields=fields, test=0)
    parts = {one: use("mlp", width=8, depth=1) for one in ("generator", "discriminator")}
    train(spec(use("gan", **parts, z_dim=2, conditioner="label"), data, steps=1, batch_size=4), tmp_path / "run")
    run("latent", tmp_path / "run", "--interpolate", "--steps", 3, "-n", 2, "--out", tmp_path / "view.png")
    with Image.open(tmp_path / "view.png") as picture:
        assert min(picture.size) > 20


@pytest.mark.wide
def test_classes_of_too_few_draws_are_left_out(runs, tmp_path):
    """The fault: a class of one or two draws ended the command, where one of none was left out."""
    out = ("--out", tmp_path / "means.png")
    text, _ = run("latent", runs / "few", "--arithmetic", "-n", 1, *out)
    assert "left out" not in text
    with Image.open(tmp_path / "means.png") as means:
        assert means.width > means.height
    text, _ = run("latent", runs / "few", "--arithmetic", "-n", 500, *out)
    assert re.match(r"classes left out: \d+, with fewer than 500 latents among 2000\n", text)
    _, error = run("latent", runs / "few", "--arithmetic", "-n", 2001, *out, status=2)
    assert "got at most" in error and "(-n 1)" in error


@pytest.mark.wide
def test_means_of_styles_hold_their_class(runs, tmp_path):
    run("latent", runs / "labelled", "--arithmetic", "--latent", "w", "-n", 1, "--out", tmp_path / "means.png")
    assert (tmp_path / "means.png").stat().st_size > 100


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("plane", (), "latent expects one of --manifold, --encode"),
        ("plane", ("--manifold", "--out", "a.gif"), "a file ending in .png or .svg, got a.gif"),
        ("plane", ("--encode", "--field", "color"), "one of: labels; got 'color'"),
        ("plane", ("--reconstruct", "-n", 400), "at most the 360 test samples, got 400"),
        ("plain", ("--manifold",), "a plane expects a latent of 2 dimensions"),
        ("codes", ("--traverse", "--latent", "codes"), "'codes' to be one continuous tensor, got Autoencoder with"),
        ("gan", ("--reconstruct",), "a latent of samples expects a Model that encodes, got GAN; project them"),
        ("gan", ("--arithmetic", "--classes", "3,1"), "--classes expects three numbers a,b,c, got '3,1'"),
        ("styled", ("--encode", "--latent", "w"), "a latent of samples expects a Model that encodes, got GAN"),
        ("styled", ("--manifold", "--latent", "w"), "a plane expects a latent of 2 dimensions"),
        ("labelled", ("--arithmetic",), "the class as the field 'labels'; --latent w names latents that hold it"),
        ("codes", ("--interpolate", "--latent", "z"), "'z' to be one continuous tensor, got Autoencoder with codes"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_the_reason(name, arguments, message, runs):
    _, error = run("latent", runs / name, *arguments, status=2)
    assert message in error
