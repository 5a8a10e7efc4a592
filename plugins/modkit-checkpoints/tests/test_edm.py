import json
import math
import pickle
import sys
import types
from itertools import pairwise

import pytest
import torch
from modkit_checkpoints.edm import convert
from modkit_checkpoints.edm_keys import embed_labels
from modkit_checkpoints.importing import import_checkpoint
from modkit_checkpoints.placeholder import Placeholder

import modkit
from modkit import Cond, Spec
from modkit.publishing.import_weights import import_weights
from modkit.rng import Rng

from .drawn import Drawn, build_model, normal, same
from .nvidia_networks import edm_unet, make_lines

SONG = {"model_type": "SongUNet", "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": []}
SONG |= {"encoder_type": "standard", "decoder_type": "standard", "resample_filter": [1, 1], "channel_mult_noise": 1}
SONG |= {"embedding_type": "positional", "img_resolution": 8, "img_channels": 2, "channel_mult_emb": 4}
FIR = [1, 3, 3, 1]
SONGS = {
    "ddpm++": {"channel_mult": [2, 1], "attn_resolutions": [4], "label_dim": 3, "augment_dim": 4},
    "ncsn++": {
        "embedding_type": "fourier", "channel_mult_noise": 2, "encoder_type": "residual", "resample_filter": FIR,
    },
    "skips": {"encoder_type": "skip", "decoder_type": "skip", "resample_filter": FIR, "attn_resolutions": [8, 64]},
    "box": {"encoder_type": "residual", "decoder_type": "skip", "channel_mult": [1, 1, 2], "label_dim": 2},
}  # fmt: skip
DHARIWAL = {"model_type": "DhariwalUNet", "model_channels": 64, "channel_mult": [1, 2], "num_blocks": 1}
DHARIWAL |= {"attn_resolutions": [4], "img_resolution": 8, "img_channels": 2, "channel_mult_emb": 1}
DHARIWALS = {
    "EDMPrecond": {"label_dim": 3, "augment_dim": 4, "sigma_data": 0.25},
    "iDDPMPrecond": {"M": 50, "attn_resolutions": [8]},
}


def draw_inputs(c):
    """Inputs for three samples: x, time, labels as one-hot rows (the last of none) and as numbers, augmentation."""
    classes, augment = c.get("label_dim", 0), c.get("augment_dim", 0)
    ids = torch.tensor([0, classes - 1, classes]) if classes else None
    onehot = torch.nn.functional.one_hot(ids, classes + 1)[:, :classes].double() if classes else None
    labels = normal(3, augment, seed=3) if augment else None
    x = normal(3, c["img_channels"], c["img_resolution"], c["img_resolution"])
    return x, torch.tensor([-1.5, 0.2, 1.1], dtype=torch.float64), onehot, ids, labels


def run_theirs(c, output):
    """What the equations give, and the state dict that they asked for, with the filters that theirs keep."""
    net = Drawn("model.")
    x, time, onehot, _, augment = draw_inputs(c)
    y = edm_unet(net, x, time, onehot, augment, c, output)
    if c["model_type"] == "DhariwalUNet":
        return y, net.tensors
    taps = torch.tensor(c["resample_filter"]) / sum(c["resample_filter"])
    kernel = torch.outer(taps, taps)[None, None]
    return y, {**net.tensors, **{f"model.enc.4x4_down.{name}.resample_filter": kernel for name in ("conv0", "skip")}}


def convert_theirs(c, name="EDMPrecond", output=2):
    y, tensors = run_theirs(c, output)
    made = convert(tensors, {"class_name": f"training.networks.{name}", **c}, False)
    return y, made, build_model(made)


CASES = {**{name: ({**SONG, **c}, "EDMPrecond") for name, c in SONGS.items()}}
CASES |= {name: ({**DHARIWAL, **c}, name) for name, c in DHARIWALS.items()}


@pytest.mark.wide(1)
@pytest.mark.parametrize("name", CASES)
def test_a_unet_is_its_equations_over_the_authors_keys(name):
    c, precond = CASES[name]
    y, made, model = convert_theirs(c, precond, 4 if precond == "iDDPMPrecond" else 2)
    x, time, _, ids, augment = draw_inputs(c)
    same(model.network(x, Cond(time=time, labels=ids), augment), y)
    assert [key.endswith("resample_filter") for key in made.aside] == [True, True] * (name in SONGS)


def predict(model, x, sigma):
    t = model.schedule.time(torch.tensor(sigma, dtype=torch.float64)).expand(len(x))
    coefficients = model.parametrization.coefficients(t, model.schedule.scales(t))
    x_in, time = model.parametrization.inputs(x, coefficients)
    return model.parametrization.denoised(model.network(x_in, Cond(time=time)), x, coefficients).x_0, t


def test_the_denoiser_is_edms_preconditioning():
    c = {**SONG, "sigma_data": 0.3, "sigma_min": 0.01, "sigma_max": 50.0}
    _, _, model = convert_theirs(c)
    assert (model.schedule.sigma_min, model.schedule.sigma_max) == (0.01, 50.0)
    x, sigma, net = 3 * draw_inputs(c)[0], 1.7, Drawn("model.")
    time = torch.full((3,), math.log(sigma) / 4, dtype=torch.float64)
    f = edm_unet(net, x / (sigma**2 + 0.09) ** 0.5, time, None, None, c, 2)
    expected = 0.09 / (sigma**2 + 0.09) * x + 0.3 * sigma / (sigma**2 + 0.09) ** 0.5 * f
    torch.testing.assert_close(predict(model, x, sigma)[0], expected, rtol=1e-9, atol=1e-11)


@pytest.mark.wide
def test_the_denoiser_is_iddpms_on_its_table():
    c = {**DHARIWAL, "M": 20, "C_1": 0.01, "C_2": 0.02}
    _, _, model = convert_theirs(c, "iDDPMPrecond", 4)
    u = [0.0]  # backwards from the clean end, as the paper's table goes
    for j in range(20, 0, -1):
        ratio = (torch.sin(torch.tensor([j - 1, j]) * torch.pi / 2 / 20 / 1.02) ** 2).double()
        u.insert(0, float(((u[0] ** 2 + 1) / max(float(ratio[0] / ratio[1]), 0.01) - 1) ** 0.5))
    x, j = 3 * draw_inputs(c)[0], 7
    time = torch.full((3,), 20.0 - 1 - j).double()
    f = edm_unet(Drawn("model."), x / (u[j] ** 2 + 1) ** 0.5, time, None, None, c, 4)
    alpha = 1 / (u[j] ** 2 + 1) ** 0.5
    got, t = predict(model, alpha * x, u[j])
    torch.testing.assert_close(t * 20 - 1, torch.full((3,), 19.0 - j).double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got, x - u[j] * f[:, :2], rtol=1e-4, atol=1e-4)


@pytest.mark.wide(1)
@pytest.mark.parametrize("ends", [{"M": 1000}, {"M": 20, "C_1": 0.3}])
def test_a_table_is_sampled_from_no_more_noise_than_levels_are(ends):
    _, made, model = convert_theirs({**DHARIWAL, **ends}, "iDDPMPrecond", 4)
    times = model.sampler.times()
    alpha, sigma = model.schedule.scales(torch.stack([times.new_ones(()), times[0]]))
    highest, first = (sigma / alpha).tolist()
    assert first == pytest.approx(min(80.0, highest)) and (highest > 1e4) == (ends["M"] == 1000)
    assert not modkit.check(Spec(**made.spec)).findings and made.spec["model"]["sampler"]["use"] == "ddim"


@pytest.mark.parametrize("churn", [0.0, 3.0])
def test_the_sampler_is_edms_algorithm_2(churn):
    """Written out with x_0 = x / (1 + sigma^2), the denoiser of normal data, over the grid of levels."""
    _, made, _ = convert_theirs(SONG)
    ends = {"sigma_min": 0.002, "sigma_max": 80.0}
    assert made.spec["model"]["sampler"] == {"use": "heun", "steps": 18, "rho": 7.0, **ends}
    sampler = {**made.spec["model"]["sampler"], "steps": 5, "churn": churn, "churn_min": 0.1, "noise": 1.1}
    model = modkit.build(Spec(**{**made.spec, "model": {**made.spec["model"], "sampler": sampler}}))
    i = torch.arange(5, dtype=torch.float64)
    levels = [*((80 ** (1 / 7) + i / 4 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7).tolist(), 0.0]
    start = normal(2, 2, 8, 8)
    x = levels[0] * start
    for index, (level, lower) in enumerate(pairwise(levels)):
        gamma = min(churn / 5, 2**0.5 - 1) if level >= 0.1 else 0.0
        high = level * (1 + gamma)
        x = x + (high**2 - level**2) ** 0.5 * 1.1 * Rng(0).at("sampler", index).normal("eps", x)
        slope = (x - x / (1 + high**2)) / high
        y = x + (lower - high) * slope
        if lower:
            slope = (slope + (y - y / (1 + lower**2)) / lower) / 2
            y = x + (lower - high) * slope
        x = y

    def denoise(x_t, t):
        return modkit.Denoised(x_t / (1 + model.schedule.scales(t)[1] ** 2))

    mine = model.sampler.start(start, model.sampler.times()[0])
    torch.testing.assert_close(modkit.sample(model.sampler, denoise, mine, rng=Rng(0)), x, rtol=1e-9, atol=1e-11)


def pickle_module(c, tensors, name="EDMPrecond"):
    """A module as EDM's persistence pickles one: a call that is given class, source code and state."""
    modules: dict = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    for key, tensor in tensors.items():
        *path, last = key.split(".")
        place = modules
        for step in path:
            place = place["_modules"].setdefault(step, {"_parameters": {}, "_buffers": {}, "_modules": {}})
        place["_buffers" if last == "resample_filter" else "_parameters"][last] = tensor
    state = {**modules, "_init_args": (), "_init_kwargs": c}
    meta = {"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": name, "state": state}
    return Placeholder("torch_utils.persistence._reconstruct_persistent_obj", True, (meta,))


def test_a_snapshot_holds_averages_and_a_training_state_what_was_trained():
    y, tensors = run_theirs(SONG, 2)
    snapshot = {"ema": pickle_module(SONG, tensors), "loss_fn": None, "augment_pipe": None, "dataset_kwargs": {}}
    made = convert(snapshot, None, False)
    assert made.aside[:3] == ("loss_fn", "augment_pipe", "dataset_kwargs")
    x, time, *_ = draw_inputs(SONG)
    same(build_model(made).network(x, Cond(time=time)), y)
    state = {"net": pickle_module(SONG, tensors), "optimizer_state": {}}
    assert convert(state, None, True).weights.keys() == made.weights.keys()
    assert convert(snapshot["ema"], None, False).spec == made.spec
    with pytest.raises(ValueError, match="'net' in the source, which holds averaged weights only"):
        convert(snapshot, None, True)
    with pytest.raises(ValueError, match="'ema' in the source, which holds weights as trained only"):
        convert(state, None, False)
    with pytest.raises(ValueError, match="expected no configuration"):
        convert(snapshot, SONG, False)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"class_name": "VPPrecond"}, "preconditioned by EDMPrecond, iDDPMPrecond, got VPPrecond"),
        ({"class_name": "VEPrecond"}, "got VEPrecond"),
        ({"model_type": "UNet"}, "model_type is expected to be SongUNet or DhariwalUNet, got 'UNet'"),
        ({"resample_filter": [1, 2, 1]}, r"resample_filter is expected to be \[1, 1\] or \[1, 3, 3, 1\], got"),
        ({"encoder_type": "wide"}, "encoder_type is expected to be 'standard' or"),
        ({"num_bloks": 2}, "no argument 'num_bloks'; did you mean 'num_blocks'"),
        ({"img_resolution": 9}, "img_resolution is expected to be a multiple of 2"),
        ({"label_dim": 3}, "the key 'map_label.weight' is expected to be a matrix of 3 columns, got none"),
        ({"channel_mult": [1, 2, 2]}, "missing keys|unknown keys"),
        ({"sigma_data": "half"}, "sigma_data is expected to be a number"),
    ],
    ids=str,
)
def test_configurations_that_are_not_understood_are_refused(change, message):
    _, tensors = run_theirs(SONG, 2)
    with pytest.raises(ValueError, match=message):
        build_model(convert(tensors, {"class_name": "EDMPrecond", **SONG, **change}, False))


def test_narrow_attention_and_other_filters_are_refused():
    with pytest.raises(ValueError, match="model_channels is expected to be 64 channels or more where it attends"):
        narrow = {"class_name": "EDMPrecond", **DHARIWAL, "model_channels": 32, "channel_mult": [1, 1]}
        convert({"model.a": torch.ones(1)}, narrow, False)
    _, tensors = run_theirs(SONG, 2)
    key = "model.enc.4x4_down.conv0.resample_filter"
    with pytest.raises(ValueError, match=r"down.conv0.resample_filter' is expected to hold the filter \[1, 1\]"):
        convert({**tensors, key: torch.ones(1, 1, 2, 2)}, {"class_name": "EDMPrecond", **SONG}, False)
    with pytest.raises(ValueError, match="unknown keys: extra"):
        convert({**tensors, "extra": torch.ones(1)}, {"class_name": "EDMPrecond", **SONG}, False)
    with pytest.raises(ValueError, match="expected a configuration with class_name"):
        convert(tensors, None, False)


def test_a_table_of_labels_is_the_matrix_on_one_hot_rows():
    weight, bias = normal(5, 3), normal(5, seed=2)
    table = embed_labels({"map_label.weight": weight, "map_label.bias": bias}, 3, scaled=True)["map_label.table"]
    rows = torch.cat([torch.eye(3), torch.zeros(1, 3)]).double()
    torch.testing.assert_close(table, math.sqrt(3) * rows @ weight.T + bias)
    assert make_lines(4, FIR).sum() < 2  # the helper's filter does not reach beyond the ends


@pytest.mark.wide
def test_a_run_loads_and_samples_by_label(tmp_path):
    c = {**SONG, **SONGS["ddpm++"]}
    _, made, model = convert_theirs(c)
    sampler = {"use": "heun", "steps": 2}
    spec = {**made.spec, "model": {**made.spec["model"], "sampler": sampler}}
    import_weights(Spec(**spec), made.weights, tmp_path / "run")
    loaded = modkit.load(tmp_path / "run")
    samples = loaded.sample(2, seed=0, labels=torch.tensor([0, 2]))
    assert samples.shape == (2, 2, 8, 8) and samples.isfinite().all()
    assert not torch.equal(samples[1], loaded.sample(2, seed=0, labels=torch.tensor([0, 1]))[1])
    assert json.loads(json.dumps(made.spec)) == made.spec


class Persistent:
    """A module that is pickled as EDM's are: as a call of their library's with its state."""

    def __init__(self, meta):
        self.meta = meta

    def __reduce__(self):
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


def write_snapshot(path, c, tensors):
    """Writes a snapshot as EDM's library pickles one."""
    library = types.ModuleType("torch_utils.persistence")
    exec("def _reconstruct_persistent_obj(meta): raise SystemExit", vars(library))
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
        patched.setitem(sys.modules, "torch_utils.persistence", library)
        whole = {key: torch.nn.Parameter(tensor.float()) for key, tensor in tensors.items()}
        snapshot = {"ema": Persistent(pickle_module(c, whole).args[0]), "dataset_kwargs": {"path": "data.zip"}}
        path.write_bytes(pickle.dumps(snapshot))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_blocks": 10**9}, "expected at most 20000 modules and parameters in one part, got more"),
        ({"model_channels": 10**12}, "the network cannot be built: "),
        ({"model_channels": 10**400}, "the network cannot be built: "),
        ({"dropout": 10**400}, "dropout is expected to be a number of at least 0, got 1000"),
        ({"label_dim": 10**12}, "'map_label.weight' is expected to be a matrix of 1000000000000 columns, got none"),
        ({"img_resolution": 10**9}, "snapshot.pkl as edm: .*overflow"),
    ],
    ids=str,
)
def test_a_snapshot_that_asks_for_absurd_sizes_is_refused_in_words(tmp_path, change, message):
    """Its arguments are in the file; a network of them is never built whole."""
    write_snapshot(tmp_path / "snapshot.pkl", {**SONG, **change}, {"model.map_layer0.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=message):
        import_checkpoint(tmp_path / "snapshot.pkl", tmp_path / "run", format="edm")
    assert not (tmp_path / "run").exists()


@pytest.mark.wide
def test_a_snapshot_that_was_pickled_becomes_a_run_and_nothing_of_theirs_is_imported(tmp_path):
    y, tensors = run_theirs(SONG, 2)
    write_snapshot(tmp_path / "snapshot.pkl", SONG, tensors)
    made = import_checkpoint(tmp_path / "snapshot.pkl", tmp_path / "run", format="edm")
    assert "dataset_kwargs" in made.aside
    x, time, *_ = draw_inputs(SONG)
    got = modkit.load(tmp_path / "run").network(x.float(), Cond(time=time))
    torch.testing.assert_close(got.double(), y, rtol=1e-4, atol=1e-5)
