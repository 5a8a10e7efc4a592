"""The gallery: its captions, its pictures, its page, and a run of two examples that is stopped, resumed and kept."""

import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import pytest
import torch
from PIL import Image

import modkit
import modkit.runs.checkpoint
from examples.gallery import __main__ as command
from examples.gallery import captions, study
from examples.gallery.captions import FOLDER, list_examples, read_captions
from examples.gallery.pictures import draw_example, encode_small, join_corners
from examples.gallery.report import make_report, write_page
from examples.gallery.study import BEST, Plan, carry_out, find_missing_plugin, show_example
from examples.studies.page import insert
from modkit import Rng
from modkit.building.session import load_run, open_data
from modkit.data import read_samples
from modkit.models.model import evaluate_mode, reconstruct_batch
from modkit.runs.pictures import encode_png
from tests.examples.killing import killed_after
from tests.forks import server

SMALL = Plan(steps=1, num=24, only=("vae", "gan-ring"))
LINE, SIDE = 4, 52  # of a line, and of an image of 48 with a line


def make_row(**changes):
    score = {"value": 0.5, "error": 0.1, "floor": 0.25}
    return {"steps": 3000, "seconds": 90.0, "samples": 360, "scores": {"FD": score, "SSIM": score}} | changes


def show(name, tmp_path, *overrides):
    """An example's untrained model and its data."""
    spec = modkit.load_spec(FOLDER / f"{name}.yaml", overrides)
    run = modkit.train(spec, tmp_path / name, steps=0, evaluate=False)
    return modkit.load(run), open_data(run)


def cell(picture, row, column):
    """An image of a grid, without its lines."""
    return picture[:, row * SIDE + LINE : (row + 1) * SIDE, column * SIDE + LINE : (column + 1) * SIDE]


def enlarge(x):
    """Values in [-1, 1], `c h w`, as grey levels of an image of a grid."""
    return (
        ((x + 1) * 127.5)
        .round()
        .to(torch.uint8)
        .repeat_interleave(48 // x.shape[1], 1)
        .repeat_interleave(48 // x.shape[2], 2)
    )


def test_every_example_has_a_caption():
    assert sorted(list_examples()) == sorted(path.stem for path in FOLDER.glob("*.yaml"))
    assert set(BEST) <= set(list_examples())


def test_an_example_without_a_caption_is_refused(tmp_path, monkeypatch):
    (tmp_path / "captions.yaml").write_text("GANs: {dcgan: sharp}\n")
    monkeypatch.setattr(captions, "_FILE", tmp_path / "captions.yaml")
    with pytest.raises(ValueError, match=r"to have each of ac-gan, .*, dcgan, .* once, got dcgan"):
        read_captions()


@pytest.mark.wide
def test_a_picture_of_restored_images_has_what_is_given_above_and_the_original_below(tmp_path):
    model, data = show("inpainting", tmp_path, "model.prior.sampler.steps=1")
    picture = draw_example(model, data)
    assert picture.shape == (1, 6 * SIDE + LINE, 10 * SIDE + LINE)
    held = data.read("test", range(20), Rng(0))
    for index in (0, 7, 13):
        band, column = divmod(index, 10)
        assert torch.equal(cell(picture, 3 * band, column), enlarge(held.fields["masked"][index]))
        assert torch.equal(cell(picture, 3 * band + 2, column), enlarge(held.tensor[index]))


@pytest.mark.parametrize(("name", "given"), [("autoencoder", None), ("denoising-autoencoder", "noisy")])
def test_what_has_no_prior_is_shown_by_reconstructions(name, given, tmp_path):
    model, data = show(name, tmp_path)
    picture, rows = draw_example(model, data), 3 if given else 2
    held = read_samples(data, "test", range(20), Rng(0))
    with evaluate_mode(model):
        made = reconstruct_batch(model, held)
    assert picture.shape == (1, 2 * rows * SIDE + LINE, 10 * SIDE + LINE)
    shown = [*([held.fields[given]] if given else []), made, held.tensor]
    for index in (0, 7, 13):
        band, column = divmod(index, 10)
        for row, x in enumerate(shown):
            assert torch.equal(cell(picture, rows * band + row, column), enlarge(x[index].clamp(-1, 1)))


@pytest.mark.wide
def test_a_column_has_one_class(tmp_path, monkeypatch):
    model, data = show("ldm-class", tmp_path)

    def sample(num, *, seed, labels=None):
        assert seed == 0
        labels = torch.zeros(num) if labels is None else labels
        return (labels.float() / 9 * 2 - 1).view(num, 1, 1, 1).expand(num, 1, 16, 16)

    monkeypatch.setattr(model, "sample", sample)
    picture = draw_example(model, data)
    assert picture.shape == (1, 4 * SIDE + LINE, 10 * SIDE + LINE)
    for row, column in ((0, 0), (0, 3), (3, 9)):
        assert cell(picture, row, column).unique().tolist() == [round(column / 9 * 255)]


def test_a_latent_of_two_numbers_is_shown_whole(tmp_path, monkeypatch):
    model, data = show("vae-2d", tmp_path)
    monkeypatch.setattr(model, "decode", lambda z, name: z.tanh()[:, :, None, None].expand(-1, 2, 16, 16)[:, :1])
    picture = draw_example(model, data)
    means = torch.tensor([[cell(picture, r, c).double().mean() for c in range(10)] for r in range(10)])
    assert bool((means.diff(dim=1) > 0).all()) and bool((means.diff(dim=0) == 0).all())  # the first goes right
    median = torch.distributions.Normal(0, 1).icdf(torch.tensor(0.55)).tanh()
    assert means[0, 5] == round(float((median + 1) * 127.5))
    monkeypatch.setattr(model, "decode", lambda z, name: z.tanh()[:, 1:, None, None].expand(-1, 1, 16, 16))
    picture = draw_example(model, data)
    assert float(cell(picture, 0, 0).double().mean()) > float(cell(picture, 9, 0).double().mean())  # the second up


def test_samples_of_a_hierarchy_fill_the_picture(tmp_path):
    model, data = show("ladder-vae", tmp_path)
    picture = draw_example(model, data)
    assert picture.shape == (1, 4 * SIDE + LINE, 10 * SIDE + LINE)
    assert torch.equal(cell(picture, 1, 2), enlarge(model.sample(40, seed=0)[12]))


def test_points_stand_beside_held_out_ones_on_the_same_axes(tmp_path, monkeypatch):
    model, data = show("ddgan-25-gaussians", tmp_path)
    monkeypatch.setattr(model, "sample", lambda num, *, seed: data.read("test", range(num), Rng(0)).tensor)
    picture = draw_example(model, data)
    assert picture.shape == (1, 256, 513) and torch.equal(picture[..., :256], picture[..., 257:])
    assert int((picture[0, :, 256] != 0).sum()) == 0


def test_the_row_joins_the_first_samples(tmp_path):
    grid = torch.arange(4 * SIDE + LINE, dtype=torch.uint8).view(1, -1, 1).expand(1, -1, 10 * SIDE + LINE)
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(encode_png(grid))
    row = join_corners([tmp_path / "a.png", tmp_path / "b.png"])
    side = 4 * SIDE + LINE
    assert row.shape == (1, side, 2 * side + 8)
    assert torch.equal(row[..., :side], grid[..., :side]) and torch.equal(row[..., -side:], grid[..., :side])
    assert row[..., side:-side].unique().tolist() == [255]


def test_a_file_is_small_and_keeps_its_levels(tmp_path):
    levels = torch.arange(16, dtype=torch.uint8) * 17
    (tmp_path / "a.png").write_bytes(encode_small(levels.repeat_interleave(16).expand(1, 256, 256)))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P" and sorted(colour for _, colour in image.convert("L").getcolors()) == levels.tolist()
    assert (tmp_path / "a.png").stat().st_size < 1000


def test_the_report_has_sections_by_family_in_the_order_of_the_captions():
    rows = {"dcgan": make_row(), "vae": make_row(seconds=None), "vqvae": make_row(seconds=30.0)}
    text = make_report(rows, {"gmm-prior": "the plug-in sklearn is not installed"})
    places = [
        text.index(f"# {title}\n")
        for title in (
            "Variational autoencoders",
            "vae",
            "Discrete codes and priors over them",
            "vqvae",
            "GANs",
            "dcgan",
        )
    ]
    assert places == sorted(places) and "Diffusion" not in text
    assert text.startswith("3 examples; training took 2.0 minutes of CPU time, one thread each.")
    assert "| 360 samples | 0.5 ± 0.1 |\n| held-out data | 0.25 |" in text and "SSIM" not in text
    assert "`modkit train examples/dcgan.yaml`: 3,000 steps, 1.5 minutes of CPU time." in text
    assert "`modkit train examples/vae.yaml`: 3,000 steps, an interrupted training." in text
    assert "- `gmm-prior`: the plug-in sklearn is not installed" in text
    assert max(len(line) for line in text.splitlines() if line[:1] not in "|`") <= 120


def test_the_report_of_reconstructions_has_no_held_out_samples():
    text = make_report({"autoencoder": make_row(samples=None)}, {})
    assert "![Reconstructions of autoencoder]" in text and "| reconstructions | 0.5 ± 0.1 |" in text
    assert "held-out data" not in text


def test_an_example_is_measured_by_what_its_spec_names_and_by_what_applies(tmp_path):
    run = modkit.train(modkit.load_spec(FOLDER / "iwae.yaml"), tmp_path / "iwae", steps=0, evaluate=False)
    first, *others = study._choose_metrics(load_run(run, needs=("data", "evaluate")))
    assert first.num == 100 and others == ["fd", "prdc", "copying", "reconstruction"]
    run = modkit.train(modkit.load_spec(FOLDER / "autoencoder.yaml"), tmp_path / "plain", steps=0, evaluate=False)
    assert study._choose_metrics(load_run(run, needs=("data", "evaluate"))) == ["reconstruction"]


def test_a_page_is_begun_filled_and_filled_again(tmp_path):
    pictures, page = tmp_path / "out" / "gallery", tmp_path / "docs" / "gallery.md"
    for folder in (pictures, page.parent):
        folder.mkdir(parents=True)
    (pictures / "vae.png").write_bytes(b"picture")
    assert command._find_page(str(page)) == page
    write_page(page, "old", pictures)
    write_page(page, make_report({"vae": make_row(), "dcgan": make_row()}, {"mar": "no plug-in"}), pictures)
    text = page.read_text()
    assert text.startswith("# Gallery\n") and "\n\n2 examples; " in text and "old" not in insert(text, "")
    assert (
        "## [GANs](gallery/gans.md)\n\n![Samples of dcgan](gallery/dcgan.png)\n\n[dcgan](gallery/gans.md#dcgan)" in text
    )
    assert text.index("variational-autoencoders.md") < text.index("gans.md") < text.index("## Not shown\n\n- `mar`")
    family = (page.parent / "gallery" / "variational-autoencoders.md").read_text()
    assert family.startswith("# Variational autoencoders\n") and "\n## vae\n\n![Samples of vae](vae.png)\n" in family
    assert (page.parent / "gallery" / "vae.png").read_bytes() == b"picture"
    assert command._find_page(str(page)) == page
    with pytest.raises(Exception, match="nowhere"):
        command._find_page(str(tmp_path / "nowhere" / "gallery.md"))


def test_a_plugin_that_is_not_installed_is_named(monkeypatch):
    class Registry:
        plugins = ()

    assert find_missing_plugin("vae") is None
    monkeypatch.setattr(study, "get_registry", Registry)
    assert [find_missing_plugin(name) for name in ("vae", "gmm-prior", "ldm-diffusers")] == [
        None, "sklearn", "diffusers"
    ]  # fmt: skip


@pytest.mark.wide
def test_two_examples_are_shown_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "make_pool", partial(ProcessPoolExecutor, mp_context=server()))
    said = []
    (tmp_path / "examples" / "vae").mkdir(parents=True)
    (tmp_path / "examples" / "vae" / "run").write_text("in the way")
    text = carry_out(SMALL, tmp_path, said.append)
    assert "### gan-ring" in text and "- `vae`: " in text and "![Samples of vae]" not in text
    assert not (tmp_path / "gallery" / "best.png").exists()

    (tmp_path / "examples" / "vae" / "run").unlink()
    with killed_after(modkit.runs.checkpoint, "save_snapshot", 1), pytest.raises(KeyboardInterrupt):
        show_example("vae", SMALL, tmp_path)
    assert modkit.Run.open(tmp_path / "examples" / "vae" / "run").status == "started"
    show_example("vae", SMALL, tmp_path)

    monkeypatch.setattr(study, "show_example", None)  # nothing is left to do
    text = carry_out(SMALL, tmp_path, said.append)
    assert "### vae\n\n![Samples of vae](gallery/vae.png)" in text and "1 steps, an interrupted training" in text
    assert {path.name for path in (tmp_path / "gallery").iterdir()} == {"vae.png", "gan-ring.png", "best.png"}
    kept = json.loads((tmp_path / "study.json").read_bytes())
    assert kept["examples"]["gan-ring"]["scores"]["modes"]["floor"] == 8 and kept["left out"] == {}
    assert kept["examples"]["gan-ring"]["seconds"] > 0 and kept["examples"]["vae"]["samples"] == 24
    assert (tmp_path / "report.md").read_text() == text

    with pytest.raises(ValueError, match="expected examples of autoencoder, .*, got vea"):
        carry_out(Plan(only=("vea",)), tmp_path)
    with pytest.raises(ValueError, match="another steps"):
        carry_out(Plan(only=("vae",)), tmp_path)
    monkeypatch.setattr(study, "FOLDER", tmp_path)
    for name in list_examples():
        spec = modkit.load_spec(FOLDER / f"{name}.yaml").with_value("train.steps", 7)
        (tmp_path / f"{name}.yaml").write_text(spec.to_yaml())
    with pytest.raises(ValueError, match="vae to hold a study of the same plan, got one with another spec"):
        carry_out(SMALL, tmp_path)
