import pytest
import torch
from sklearn.decomposition import PCA
from torch.distributions import Normal

from modkit import build, use
from modkit.rng import Rng
from modkit.types import Batch, Latents
from tests.models.test_autoencoder import place
from tests.models.test_latent import Joined, Recorder, Tower
from tests.play import LINEAR, MLP, digits, spec
from tests.refusals import refusals

GAUSSIAN = {**LINEAR, "bottleneck": use("gaussian", channels=5), "likelihood": "gaussian"}
VQ = {**MLP, "bottleneck": use("vq", num_codes=6, channels=3)}


class Known(Recorder):
    """A prior whose density is known: a normal, or uniform codes."""

    def __init__(self, x):
        super().__init__(x)
        self.loc, self.scale = torch.zeros(()).double(), torch.ones(()).double()

    def bound(self, batch, num, rng, *, grain=0.0):
        self.seen.append((batch, num, rng))
        assert grain == 0  # latents have none
        if self.event.classes is not None:
            return torch.full((len(batch),), -self.event.numel * float(torch.tensor(self.event.classes).log()))
        return Normal(self.loc, self.scale).log_prob(batch.tensor).flatten(1).sum(1)


def made(autoencoder, prior=None, **options):
    latent = use("latent", autoencoder=use("autoencoder", **autoencoder), prior=prior or use(Known), **options)
    return build(spec(latent)).double()


def test_with_a_known_prior_at_a_linear_vae_s_optimum_it_is_probabilistic_pca_s_likelihood():
    x = digits(480, torch.float64).tensor
    pca = PCA(5, svd_solver="full").fit(x.flatten(1).numpy())
    model = made(GAUSSIAN).requires_grad_(False)
    place(model.autoencoder, pca, 1.0)
    model.mean_0.fill_(0.3)
    model.std_0.fill_(1.7)
    model.prior.loc, model.prior.scale = -model.mean_0 / model.std_0, 1 / model.std_0  # standard normal in z
    exact = torch.from_numpy(pca.score_samples(x.flatten(1).numpy()))
    torch.testing.assert_close(model.bound(Batch(x, {}), 1, Rng(0)), exact, rtol=1e-9, atol=0)
    model.prior.loc = model.prior.loc + 1  # any other prior's density is that of less
    assert model.bound(Batch(x, {}), 1, Rng(0)).mean() < exact.mean() - 1


def test_the_prior_makes_all_draws_at_the_scaled_latent_with_its_fields():
    model, batch = made(GAUSSIAN, scale=0.5), digits(4, torch.float64)
    model.bound(batch, 7, Rng(3), grain=0.1)
    ((seen, num, rng),) = model.prior.seen
    z = model.autoencoder.encode(batch.tensor, "continuous", Rng(3).at("autoencoder"))
    torch.testing.assert_close(seen.tensor, 0.5 * z)
    assert num == 7 and repr(rng) == repr(Rng(3).at("prior"))
    assert torch.equal(seen.fields["labels"], batch.fields["labels"])


def test_codes_have_no_scale():
    model, batch = made(VQ), digits(4, torch.float64)
    torch.testing.assert_close(model.bound(batch, 1, Rng(0)), model.autoencoder.bound(batch, 1, Rng(0)))


class Densities:
    """Two levels, each with a normal posterior about its features."""

    def __init__(self, h):
        self.latents = {"continuous": h}

    def __call__(self, h, step):
        return Latents({"continuous": h}, None, {})

    def to_z(self, name, latent):
        return latent

    def sample(self, num, rng): ...

    def posterior(self, name, h, rng):
        draws = [level + 0.1 * rng.at(i).normal("z", level) for i, level in enumerate(h)]
        log_q = [Normal(level, 0.1).log_prob(z).sum(1) for level, z in zip(h, draws)]
        return tuple(draws), sum(log_q)


class Levels(Known):
    def bound(self, batch, num, rng, *, grain=0.0):
        self.seen.append(batch)
        return sum(Normal(0.0, 1.0).log_prob(level).sum(1) for level in batch.x)


def test_each_level_of_a_hierarchy_has_its_own_scale():
    parts = {"encoder": use(Tower), "bottleneck": use(Densities), "decoder": use(Joined)}
    model, batch = made(parts, use(Levels)), digits(4, torch.float64)
    for level, (mean, std) in enumerate(((1.0, 5.0), (-2.0, 0.3))):
        model.get_buffer(f"mean_{level}").fill_(mean)
        model.get_buffer(f"std_{level}").fill_(std)
    z, log_weight = model.autoencoder.weigh(batch.tensor, "continuous", Rng(0).at("autoencoder"))
    prior = Normal(1.0, 5.0).log_prob(z[0]).sum(1) + Normal(-2.0, 0.3).log_prob(z[1]).sum(1)
    torch.testing.assert_close(model.bound(batch, 1, Rng(0)), log_weight + prior, check_dtype=False)


def test_a_pair_as_autoencoder_weighs_through_both():
    inner = use("latent", autoencoder=use("autoencoder", **GAUSSIAN), prior=use("autoencoder", **MLP), scale=2.0)
    outer = build(spec(use("latent", autoencoder=inner, prior=use(Known), scale=1.0))).double()
    x = digits(4, torch.float64).tensor
    first, second = outer.autoencoder.autoencoder, outer.autoencoder.prior
    rng = Rng(0).at("autoencoder")
    z, log_weight = first.weigh(x, "continuous", rng.at("autoencoder"))
    u, further = second.weigh(2 * z, "continuous", rng.at("prior"))
    want = log_weight + 5 * torch.tensor(2.0).double().log() + further + Normal(0.0, 1.0).log_prob(u).sum(1)
    torch.testing.assert_close(outer.bound(Batch(x, {}), 1, Rng(0)), want)


@pytest.mark.parametrize(
    ("bottleneck", "known", "others"),
    [
        (use("gaussian", channels=2), "continuous", ()),
        (use("vq", num_codes=6, channels=3), "codes", ("continuous", "quantized")),
        (use("gumbel", num_codes=6, channels=3), "codes", ("quantized",)),
        (use("ladder", channels=2), "hierarchy", ("state",)),
    ],
)
def test_a_latent_without_a_density_is_known_before_it_is_weighed(bottleneck, known, others):
    """The fault: a bound under a prior of `continuous` vectors of codes was refused after the whole training."""
    for at in (known, *others):
        prior = Levels if at == "hierarchy" else Known
        model = made({**MLP, "bottleneck": bottleneck}, use(prior), at=at, scale=1.0)
        try:
            reason = model.bound(digits(2, torch.float64), 1, Rng(0)) is None
        except ValueError as error:
            reason = str(error)
        assert (model.explain_lack("bound") or False) == reason
        assert (at == known) == (reason is False)
        if reason:
            assert f"{at!r} has no density, only {known!r} has; expected a prior of that latent, `at: {known}" in reason


def test_of_a_pair_as_autoencoder_the_latent_of_its_prior_is_asked_about():
    coder = use("autoencoder", **MLP, bottleneck=use("gumbel", num_codes=6))
    inner = use("latent", autoencoder=use("autoencoder", **GAUSSIAN), prior=coder, scale=1.0)
    outer = use("latent", autoencoder=inner, prior=use(Known), scale=1.0)
    assert build(spec({**outer, "at": "codes"})).explain_lack("bound") is None
    assert "'quantized' has no density" in build(spec({**outer, "at": "quantized"})).explain_lack("bound")


test_what_has_no_bound_is_refused = refusals(
    (lambda: made(GAUSSIAN), "Latent has no bound on log p.x. before its prior has been prepared"),
    (lambda: made(GAUSSIAN, use("gan"), scale=1.0), "GAN has no lower bound on log p"),
    (lambda: made({**MLP, "bottleneck": "identity"}, scale=1.0), "Identity has no densities"),
    (lambda: made(VQ, at="continuous", scale=1.0), "'continuous' has no density"),
    (lambda: made(GAUSSIAN, use(Recorder), scale=1.0), "Recorder has no lower bound"),
    of=lambda make: make().bound(digits(2, torch.float64), 1, Rng(0)),
)
