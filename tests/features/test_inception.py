import hashlib
import io

import pytest
import safetensors.torch
import torch

from modkit.features import inception
from modkit.features.inception import SHA256, Inception, download_inception, find_inception
from modkit.types import TensorType
from tests.features.checks import check_extractor
from tests.refusals import check_refusal

GREY, COLOUR = TensorType((1, 8, 6), range=(-1, 1)), TensorType((3, 8, 6), range=(0, 1))


def library():
    return pytest.importorskip(
        "torch_fidelity.feature_extractor_inceptionv3", reason="torch-fidelity, whose network it is, is not installed"
    )


@pytest.fixture(scope="module")
def network():
    """The library's own extractor with random weights of a sensible size."""

    class Random(library().FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict):
            for value in self.parameters():
                if value.ndim > 1:
                    value.data.normal_(0, (2 / value[0].numel()) ** 0.5)

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Random("random", ["64", "2048", "logits_unbiased"], feature_extractor_weights_path=empty)


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "w.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def colour(file, sha256):
    return Inception(COLOUR, weights=str(file), sha256=sha256)


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


@pytest.mark.wide
def test_it_is_torch_fidelitys_on_eight_bits(network, colour):
    u = torch.randint(0, 256, (3, 3, 8, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    jitter = 0.3 * (torch.rand(u.shape, generator=torch.Generator().manual_seed(1)) - 0.5)  # rounds away
    features = check_extractor(colour, (u + jitter) / 255)
    with torch.no_grad():
        shallow, vector, logits = network(u)
    assert vector.std() > 1e-3
    torch.testing.assert_close(features.vector.detach(), vector, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(features.logits.detach(), logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(features.maps[0].detach().mean((2, 3)), shallow, rtol=1e-5, atol=1e-6)
    assert [map_.shape[1] for map_ in features.maps] == [64, 192, 768, 2048]


@pytest.mark.wide
def test_grey_is_repeated_and_values_past_the_range_are_clipped(colour, file, sha256):
    grey = Inception(GREY, weights=str(file), sha256=sha256)
    x = torch.linspace(-1, 1, 48).view(1, 1, 8, 6)
    with torch.no_grad():
        want = colour(((x + 1) / 2).expand(-1, 3, -1, -1)).vector
        assert torch.equal(grey(x).vector, want)
        assert torch.equal(grey(torch.where(x == 1, 5.0, x)).vector, want)
    assert grey.key() == colour.key()


@pytest.mark.wide
def test_only_the_published_file_is_called_inception(file, sha256, monkeypatch):
    monkeypatch.setattr(Inception, "_build", lambda *args: torch.nn.Identity())
    part = Inception(GREY, weights=str(file), sha256=sha256)
    assert part.label == f"inception@{part.key()[:6]}"
    monkeypatch.setattr(inception, "SHA256", sha256)
    assert Inception(GREY, weights=str(file)).label == "inception"


def test_the_hash_is_compared_first(file, monkeypatch):
    monkeypatch.setattr(safetensors.torch, "load", lambda data: pytest.fail("opened"))
    message = f"Inception expects .*w.safetensors to have SHA-256 {SHA256}, got"
    check_refusal(message, Inception, GREY, weights=str(file))


@pytest.mark.wide
def test_torchs_format_is_read_and_must_fit(network, tmp_path):
    def build(content):
        torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
        sha256 = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()
        return Inception(GREY, weights=str(tmp_path / "w.pth"), sha256=sha256)

    message = "Inception expects the weights of its network in .*w.pth.*fc.bias"
    check_refusal(message, build, {**network.state_dict(), "fc.bias": torch.ones(1000)})
    without_counters = {name: v for name, v in network.state_dict().items() if not name.endswith("tracked")}
    assert build(without_counters).label.startswith("inception@")


@pytest.mark.wide
def test_meta_builds(file, sha256):
    with torch.device("meta"):
        part = Inception(GREY, weights=str(file), sha256=sha256)
        assert part(torch.empty(2, 1, 8, 6)).vector.shape == (2, 2048)


def test_weights_are_found_in_either_cache(nowhere):
    assert find_inception() is None
    hub = nowhere / "torch" / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    hub.parent.mkdir(parents=True)
    hub.touch()
    assert find_inception() == hub
    own = nowhere / "cache" / "weights" / "weights-inception-2015-12-05-6726825d.pth"
    own.parent.mkdir(parents=True)
    own.touch()
    assert find_inception() == own


def test_nothing_is_downloaded_unless_asked(nowhere, monkeypatch):
    monkeypatch.setattr(inception, "import_optional", lambda *names: None)
    monkeypatch.setattr(inception.urllib.request, "urlopen", lambda *args, **options: pytest.fail("downloaded"))
    check_refusal("Inception expects its weights as `weights`, or as .* got neither. Download", Inception, GREY)


def test_a_download_is_checked_before_it_is_kept(nowhere, monkeypatch):
    source = nowhere / "published.pth"
    source.write_bytes(b"weights")
    monkeypatch.setattr(inception, "URL", source.as_uri())
    check_refusal("Inception expects file:.*published.pth to have SHA-256", download_inception)
    assert not (nowhere / "cache").exists()
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(b"weights").hexdigest())
    assert download_inception() == find_inception()
    assert find_inception().read_bytes() == b"weights"
    monkeypatch.setattr(inception, "URL", (nowhere / "absent").as_uri())
    check_refusal("Inception expects its weights at file:", download_inception)


def test_a_missing_library_says_what_installs_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    check_refusal("Inception expects torch_fidelity: pip install 'torch-fidelity", Inception, GREY, weights="w.pth")


def test_what_is_no_image_is_refused():
    check_refusal("Inception expects images of 1 or 3 channels", Inception, TensorType((2,)))
