from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from modkit_sklearn.gaussian_mixture import GaussianMixture

import modkit
from modkit import Batch, Cond, Rng, Spec, SpecError, TensorType, use
from modkit.data.digits import Digits

PROPORTIONS = torch.tensor([0.2, 0.3, 0.5])
MEANS = torch.tensor([[-4.0, 0.0], [4.0, 0.0], [0.0, 5.0]])
FACTORS = torch.tensor([[[1.0, 0.0], [0.8, 0.6]], [[0.5, 0.0], [0.0, 1.0]], [[1.0, 0.0], [-0.5, 0.3]]])


def make_known(covariance="full"):
    model = GaussianMixture(TensorType((2,)), num_components=3, covariance=covariance)
    model.proportions.copy_(PROPORTIONS)
    model.means.copy_(MEANS)
    model.factors.copy_(FACTORS if covariance == "full" else FACTORS.diagonal(dim1=1, dim2=2))
    return model


def covariances(model):
    return model.factors @ model.factors.mT if model.covariance == "full" else model.factors.square()


def batches(x, size=512):
    return [Batch(rows, {}) for rows in x.split(size)]


def fit_model(x, **keywords):
    model = GaussianMixture(TensorType(tuple(x.shape[1:])), **keywords)
    model.prepare("mixture", batches(x), Rng(0))
    return model


def latent_spec(num_components=2, scale=None):
    part = {"width": 16, "depth": 1}
    return Spec(
        name="latent",
        data=use("digits", size=8),
        model=use(
            "latent",
            autoencoder={
                "encoder": use("mlp", **part),
                "bottleneck": use("gaussian", channels=3),
                "decoder": use("mlp", **part),
            },
            prior=use("sklearn/gaussian-mixture", num_components=num_components, restarts=1),
            scale=scale,
        ),
        train={"batch_size": 64, "steps": 4, "samples": {"num": 4}},
    )


def test_declaring_imports_neither_torch_nor_scikit_learn():
    program = "import sys, modkit_sklearn; print({'torch', 'sklearn'} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"
    assert modkit.find("model", "sklearn/gaussian-mixture").load() is GaussianMixture


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_em_recovers_a_known_mixture(covariance):
    truth = make_known(covariance)
    num = 20_000
    model = fit_model(truth.sample(num, seed=1), num_components=3, covariance=covariance)
    order = torch.cdist(truth.means, model.means).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    # five standard errors: sqrt(p (1 - p) / n) of a share; sigma / sqrt(n p) of a mean; sigma^2 sqrt(2 / (n p)) of a
    # covariance, at most; sigma is at most 1 and n p at least 4000
    torch.testing.assert_close(model.proportions[order], truth.proportions, rtol=0, atol=5 * (0.25 / num) ** 0.5)
    torch.testing.assert_close(model.means[order], truth.means, rtol=0, atol=5 / 4000**0.5)
    torch.testing.assert_close(covariances(model)[order], covariances(truth), rtol=0, atol=5 * (2 / 4000) ** 0.5)


def test_one_component_is_the_data_s_mean_and_covariance():
    x = make_known().sample(1000, seed=0)
    model = fit_model(x, num_components=1, regularization=0.25)
    torch.testing.assert_close(model.means[0], x.mean(0))
    expected = torch.cov(x.T, correction=0) + 0.25 * torch.eye(2)
    torch.testing.assert_close(covariances(model)[0], expected)


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_samples_have_the_mixture_s_moments(covariance):
    model = make_known(covariance)
    x = model.sample(50_000, seed=0, batch_size=50_000).double()
    mean = PROPORTIONS @ MEANS
    within = FACTORS @ FACTORS.mT if covariance == "full" else torch.diag_embed(FACTORS.diagonal(dim1=1, dim2=2) ** 2)
    second = torch.einsum("k,kij->ij", PROPORTIONS, within + MEANS[:, :, None] * MEANS[:, None, :])
    expected = second - mean[:, None] * mean
    # five standard errors of a mean and of a covariance, whose variables have a std of at most 3.6
    torch.testing.assert_close(x.mean(0), mean.double(), rtol=0, atol=5 * 3.6 / 50_000**0.5)
    torch.testing.assert_close(torch.cov(x.T), expected.double(), rtol=0, atol=5 * 2**0.5 * 3.6**2 / 50_000**0.5)


def test_a_sample_is_its_component_s_mean_and_factor_times_noise():
    model = make_known()
    x = model.draw(64, {}, Cond(), Rng(3))
    uniform = Rng(3).uniform("component", torch.empty(64))
    component = (uniform >= 0.2).long() + (uniform >= 0.5).long()
    eps = Rng(3).normal("eps", torch.empty(64, 2))
    assert component.unique().tolist() == [0, 1, 2]
    torch.testing.assert_close(x, MEANS[component] + torch.einsum("bij,bj->bi", FACTORS[component], eps))


def test_samples_do_not_depend_on_the_batch():
    model = make_known()
    torch.testing.assert_close(model.sample(10, seed=0), model.sample(10, seed=0, batch_size=3))


def test_samples_have_the_shape_of_the_data_and_stay_in_its_range():
    model = GaussianMixture(TensorType((1, 2, 2), range=(-1.0, 1.0)), num_components=1)
    with torch.no_grad():
        model.proportions.fill_(1)
        model.factors.copy_(3 * torch.eye(4))
    x = model.sample(100, seed=0)
    assert x.shape == (100, 1, 2, 2)
    assert (x.min(), x.max()) == (-1, 1)


def test_at_most_max_samples_are_read():
    x = torch.cat([torch.zeros(50, 2) + torch.arange(50.0)[:, None], torch.full((50, 2), 1e6)])
    read = []

    def stream():
        for batch in batches(x, 20):
            read.append(len(batch))
            yield batch

    model = GaussianMixture(TensorType((2,)), num_components=1, max_samples=50)
    model.prepare("mixture", stream(), Rng(0))
    assert read == [20, 20, 20]
    torch.testing.assert_close(model.means[0], torch.tensor([24.5, 24.5]))


def test_sampling_before_prepare_is_refused():
    model = GaussianMixture(TensorType((2,)))
    with pytest.raises(ValueError, match="GaussianMixture cannot be sampled before it has been prepared"):
        model.sample(1, seed=0)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"num_components": 0}, "GaussianMixture expects num_components to be at least 1, got 0"),
        ({"max_samples": 9}, "expects max_samples of at least 2 and num_components, got 9"),
        ({"regularization": -1.0}, "expects regularization to be at least 0, got -1.0"),
        ({"covariance": "tied"}, "covariance: expected 'full' | 'diag', got 'tied'"),
    ],
)
def test_a_keyword_out_of_range_is_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(TensorType((2,)), **keywords)


def test_fewer_samples_than_components_are_refused():
    with pytest.raises(ValueError, match="GaussianMixture expects at least 10 samples to fit, got 9"):
        fit_model(torch.randn(9, 2))


def test_fewer_training_samples_than_components_are_refused_before_the_autoencoder_is_trained(tmp_path):
    few = replace(latent_spec(), data=use("subset", data=use("digits", size=8), num=20))
    modkit.check(few.with_value("model.prior.num_components", 20))
    many = few.with_value("model.prior.num_components", 21)
    with pytest.raises(SpecError, match="data: prior/mixture expects at least 21 training samples, got 20"):
        modkit.train(many, out=tmp_path / "run")
    assert not list(tmp_path.iterdir())
    modkit.check(many.with_value("train.stages", [{"players": ["autoencoder/*"]}]))  # the mixture is not fitted


def test_codes_and_hierarchies_are_refused():
    with pytest.raises(ValueError, match="GaussianMixture expects a continuous type, got 4×4 codes of 8 classes"):
        GaussianMixture(TensorType((4, 4), classes=8))
    reason = GaussianMixture.accepts((TensorType((2,)), TensorType((2,))))
    assert reason == "GaussianMixture expects one tensor, got a hierarchy of 2 levels"


def test_alone_it_finds_the_ring_s_modes_and_reloads(tmp_path):
    data = use("ring", num=2000, num_test=10)
    spec = Spec(data=data, model=use("sklearn/gaussian-mixture", num_components=8))
    run = modkit.train(spec, out=tmp_path / "run")
    model = modkit.load(run)
    angles = torch.arange(8) * torch.pi / 4
    centers = 2 * torch.stack([angles.cos(), angles.sin()], dim=1)
    # five standard errors of the mean of about 250 samples of std sqrt(0.02)
    assert torch.cdist(centers, model.means).min(1).values.max() < 5 * (0.02 / 250) ** 0.5 * 2**0.5
    assert [picture.name for picture in run.samples.iterdir()] == ["step-00000000.png"]
    assert torch.equal(model.sample(5, seed=0), modkit.load(run.path).sample(5, seed=0))


def test_as_a_latent_s_prior_it_fits_the_scaled_latents(tmp_path):
    run = modkit.train(latent_spec(num_components=1, scale=10.0), out=tmp_path / "run")
    model = modkit.load(run)
    digits = Digits(size=8).read("train", range(1437), Rng(0)).tensor
    latents = 10 * model.autoencoder.encode(digits, "continuous", Rng(0)).detach()
    # 1437 draws of three values; twice, as other noise was fitted: five standard errors of a variance's logarithm
    tolerance = 5 * (2 * 2 / (1437 * 3)) ** 0.5
    expected = float(latents.square().mean())
    fitted_moment = covariances(model.prior)[0].diagonal().mean() + model.prior.means.square().mean()
    assert float(fitted_moment) == pytest.approx(expected, rel=tolerance)
    assert float(model.prior.sample(1437, seed=0).square().mean()) == pytest.approx(expected, rel=tolerance)
    assert sorted(picture.name for picture in run.samples.iterdir()) == ["step-00000004.png"]
    x = model.sample(5, seed=0)
    assert x.shape == (5, 1, 8, 8)
    assert torch.equal(x, modkit.load(run.path).sample(5, seed=0))


@pytest.mark.wide(1)
@pytest.mark.parametrize("killed", ["before the checkpoint", "after the checkpoint"])
def test_a_run_killed_around_prepare_resumes_to_the_same_model(tmp_path, monkeypatch, killed):
    whole = modkit.load(modkit.train(latent_spec(), out=tmp_path / "whole"))
    fits = []
    prepare = GaussianMixture.prepare

    def prepare_once(self, player, batches, rng):
        prepare(self, player, batches, rng)
        fits.append(player)
        if killed == "before the checkpoint" and len(fits) == 1:
            raise KeyboardInterrupt

    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(GaussianMixture, "prepare", prepare_once)
    with monkeypatch.context() as patched:
        if killed == "after the checkpoint":
            patched.setattr(modkit.Run, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            modkit.train(latent_spec(), out=tmp_path / "killed")
    run = modkit.train(latent_spec(), out=tmp_path / "killed", resume=True)
    assert len(fits) == (2 if killed == "before the checkpoint" else 1)
    resumed = modkit.load(run).state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.state_dict().items())
