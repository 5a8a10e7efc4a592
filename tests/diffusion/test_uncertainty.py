import torch
from torch import nn

from modkit import build, use
from modkit.diffusion.gaussian import snr
from modkit.diffusion.loss_weights import Likelihood, MinSNR
from modkit.diffusion.uncertainty import Uncertainty
from tests.play import digits, shake, spec, turn
from tests.refusals import refusals

F64 = torch.float64
LOG_SNR = torch.linspace(-8, 12, 400, dtype=F64)


class Half(nn.Module):
    """out = x / 2."""

    def __init__(self, x, out, cond):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, x, cond):
        return self.weight * x


def made(**slots):
    return build(spec(use("diffusion", network=use(Half), schedule="vp", **slots))).double()


def test_u_is_a_sum_of_cosines_of_a_quarter_of_the_logarithm_of_the_noise_level():
    part = shake(Uncertainty(features=7).double(), 1.0)
    level = torch.exp(-LOG_SNR / 2)
    terms = torch.cos(torch.outer(level.log() / 4, part.frequencies) + part.phases)
    want = (2 / 7) ** 0.5 * terms @ part.weight
    torch.testing.assert_close(part.log_variance(LOG_SNR), want, rtol=1e-12, atol=1e-12)
    assert want.abs().max() > 0.1


def test_at_the_start_losses_are_those_of_the_base():
    base, own = (made(loss_weight=one) for one in ("min-snr", use("uncertainty", base="min-snr")))
    batch = digits(6, F64)
    want, got = (model.losses("denoiser", batch, turn("a")) for model in (base, own))
    assert got["uncertainty"] == 0 and torch.equal(got["denoising"], want["denoising"])


def test_losses_are_e_to_minus_u_times_the_base_s_and_u():
    model, batch = made(loss_weight=use("uncertainty", base="min-snr")), digits(6, F64)
    shake(model.loss_weight, 1.0)
    scales = model.schedule.scales(model.times(6, turn("a").rng.at("times")))
    u = model.loss_weight.log_variance(snr(scales).log())
    each = [made(loss_weight="min-snr").losses("denoiser", batch, turn("a"))["denoising"]]
    with torch.no_grad():
        model.network.weight.fill_(0.5)
    losses = model.losses("denoiser", batch, turn("a"))
    torch.testing.assert_close(losses["uncertainty"], u.mean(), rtol=1e-9, atol=0)
    x_0, eps = batch.tensor, turn("a").rng.normal("eps", batch.tensor)
    alpha, sigma = (scale.view(-1, 1, 1, 1) for scale in scales)
    error = (0.5 * (alpha * x_0 + sigma * eps) - (alpha * eps - sigma * x_0)).square().mean((1, 2, 3))
    weight = MinSNR()(snr(scales), scales[1] ** 2)
    torch.testing.assert_close((weight * error).mean(), each[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(losses["denoising"], ((-u).exp() * weight * error).mean(), rtol=1e-9, atol=0)
    assert [player.modules for player in model.players()] == [("network", "loss_weight")]
    sum(losses.values()).backward()
    assert model.loss_weight.weight.grad.abs().min() > 0


def test_e_to_u_becomes_the_mean_loss_at_each_level():
    torch.manual_seed(0)
    part = Uncertainty(features=64).double()
    loss = 0.1 + torch.sigmoid(LOG_SNR)
    optimizer = torch.optim.Adam(part.parameters(), lr=0.1)
    for _ in range(400):
        u = part.log_variance(LOG_SNR)
        optimizer.zero_grad()
        (torch.exp(-u) * loss + u).mean().backward()
        optimizer.step()
    torch.testing.assert_close(u.exp(), loss, rtol=0.1, atol=0)


test_what_does_not_fit_is_refused = refusals(
    (lambda: Uncertainty(features=0), "Uncertainty expects features to be at least 1, got 0"),
    *(
        (
            lambda base=base: Uncertainty(base=base),
            f"expects a base that is neither learned nor .*, got {base.__name__}",
        )
        for base in (Likelihood, Uncertainty)
    ),
)
