import pytest

from modkit.errors import Position, SpecError
from modkit.specs.overrides import apply, expand, locate, normalize
from modkit.specs.spec import Spec, use
from tests.refusals import refusals

ANEW = "a swap of a model starts from the new one's defaults"
GAME = "wrote train.players.{}.optimizer (for the new model's game)"
SAMPLE = """\
model:
  use: latent
  autoencoder:
    encoder: {use: conv, channels: [32, 64]}
    weights: {kl: 1e-3}
  prior:
    use: diffusion
    network: {use: unet, channels: [64, 128]}
    schedule: cosine
    sampler: {use: ddim, steps: 50, eta: 0.5}
"""


@pytest.fixture
def spec():
    return Spec.from_yaml(SAMPLE, "f")


def test_values_are_yaml(spec):
    overrides = [
        "model.autoencoder.encoder.channels=[16, 32]",
        "model.autoencoder.weights.kl=4e-2",
        "model.prior.network.deep.new={a: no}",
        "model.prior.network.none=",
        "train.seed=1",
        "train.players.*critic.every=2",
        "name=a=b",
        "model.autoencoder.encoder.channels[1]=8",
    ]
    changed, notices = apply(spec, overrides)
    assert notices == []
    assert changed.at("model.autoencoder.encoder") == use("conv", channels=[16, 8])
    assert changed.at("model.autoencoder.weights.kl") == 4e-2
    assert changed.at("model.prior.network") == use("unet", channels=[64, 128], deep={"new": {"a": "no"}}, none=None)
    assert changed.train == {"seed": 1, "players": {"*critic": {"every": 2}}}
    assert changed.name == "a=b"
    assert spec == Spec.from_yaml(SAMPLE)


def test_positions_point_into_the_override(spec):
    changed, _ = apply(spec, ["train.seed=1", "model.prior.sampler={use: heun, steps: 5}"])
    assert changed.find_position("train.seed") == Position("<override 1>", 1, 12)
    assert changed.find_position("train.seed", key=True) == Position("<override 1>", 1, 1)
    assert changed.find_position("model.prior.sampler.steps") == Position("<override 2>", 1, 40)
    assert changed.find_position("model.prior.schedule") == Position("f", 9, 15)


def test_what_an_override_creates_is_written_there(spec):
    changed, _ = apply(spec, ["train.players.nobody.optimizer=sgd", "model.prior.times.mean=1.0"])
    for path, override in (("train", 1), ("train.players.nobody.every", 1), ("model.prior.times", 2)):
        assert changed.find_position(path).file == f"<override {override}>"
    assert changed.find_position("train.players", key=True) == Position("<override 1>", 1, 1)
    made, _ = apply(Spec(model="diffusion"), ["model.sampler.steps=3"])
    assert made.find_position("model") is None and made.find_position("model.sampler.steps").column == 21


@pytest.mark.smoke
@pytest.mark.parametrize("order", [1, -1])
def test_a_swap_comes_before_values_and_keeps_what_both_declare(spec, order):
    overrides = ["model.prior.sampler=dpm-solver++", "model.prior.sampler.steps=20"][::order]
    changed, notices = apply(spec, overrides)
    assert changed.at("model.prior.sampler") == use("dpm-solver++", steps=20)
    assert notices == ["swap model.prior.sampler: dropped eta (dpm-solver++ has a scale of its own)"]


def test_a_swap_keeps_positions_of_what_it_keeps(spec):
    changed, _ = apply(spec, ["model.prior.sampler=heun"])
    assert changed.at("model.prior.sampler") == use("heun", steps=50)
    assert changed.find_position("model.prior.sampler.steps") == Position("f", 10, 33)
    assert changed.find_position("model.prior.sampler.use") == Position("<override 1>", 1, 21)


@pytest.mark.parametrize(
    "overrides, expected",
    [
        (["model.prior.sampler.use=euler"], use("euler", steps=50)),
        (["model.prior.sampler={use: euler, steps: 3}"], use("euler", steps=3)),
        (["model.prior.sampler={use: euler}"], use("euler", steps=50)),
        (["model.prior.sampler=heun", "model.prior.sampler=ddim"], use("ddim", steps=50, eta=0.5)),
        (["model.prior.sampler={steps: 3}"], use("ddim", steps=3)),
        (["model.prior.sampler=heun", "model.prior.sampler={steps: 3}"], use("heun", steps=3)),
    ],
)
def test_ways_to_swap(spec, overrides, expected):
    assert apply(spec, overrides)[0].at("model.prior.sampler") == expected


def test_parameters_without_a_name_are_those_of_the_part_in_the_slot(spec):
    changed, notices = apply(spec, ["model.prior.schedule={num: 100}", "model.prior.times={mean: 1.0}"])
    assert changed.at("model.prior.schedule") == use("cosine", num=100) and notices == []
    assert changed.at("model.prior.times") == {"mean": 1.0}, "the default's"
    assert changed.find_position("model.prior.schedule.use") == Position("f", 9, 15)
    assert changed.find_position("model.prior.schedule.num") == Position("<override 1>", 1, 28)
    loss, _ = apply(spec, ["model.autoencoder.weights={nll: 2}"])
    assert loss.at("model.autoencoder.weights") == {"nll": 2}, "a slot of several parts has no name"


@pytest.mark.parametrize(
    ("overrides", "grid"),
    [
        (["grid=even"], "even"),
        (["grid={use: karras, rho: 3}"], use("karras", rho=3, sigma_min=None)),
        (["grid.rho=3"], use("karras", rho=3, sigma_min=None)),
        (["steps=5", "grid.use=trailing"], "trailing"),
        (["rho=3"], None),
        (["clip=false"], use("karras", rho=5, sigma_min=None)),
    ],
    ids=str,
)
def test_an_override_replaces_what_was_written_in_a_former_name(overrides, grid):
    """The fault: a grid beside the older `spacing` was ignored."""
    sampler = use("ddim", steps=4, spacing="karras", rho=5, sigma_min=None)
    changed, _ = apply(Spec(model=use("diffusion", sampler=sampler)), [f"model.sampler.{one}" for one in overrides])
    made = changed.model["sampler"]
    assert made.get("grid") == grid
    assert "spacing" not in made or made == use("ddim", steps=4, spacing="karras", rho=3, sigma_min=None)


def test_a_value_that_does_not_fit_is_dropped():
    spec = Spec(model=use("diffusion", sampler=use("ddim", steps="many", eta=0.5, typo=1)))
    sampler, notices = apply(spec, ["model.sampler=euler"])
    assert sampler.at("model.sampler") == "euler"
    assert len(notices) == 2
    assert notices[0].startswith("swap model.sampler: dropped steps (euler: expected int")
    assert notices[1] == "swap model.sampler: dropped eta, typo (unknown to euler)"


def test_a_swap_of_a_part_around_another_says_how_the_inner_one_is_swapped():
    data = use("corrupted", data=use("digits", size=16), corruption="mask")
    swapped, notices = apply(Spec(data=data, model="gan"), ["data=image-folder", "data.root=photos"])
    assert swapped.data == use("image-folder", root="photos")
    wrapped = "swap data: the former part wrapped another one, which data.data=image-folder swaps alone"
    assert notices == ["swap data: dropped data, corruption (unknown to image-folder)", wrapped]
    inner, notices = apply(Spec(data=data, model="gan"), ["data.data=image-folder", "data.data.root=photos"])
    assert inner.at("data.corruption") == "mask" and notices == []
    assert apply(Spec(data=data, model="gan"), ["data=binarized"])[1] == [
        "swap data: dropped corruption (unknown to binarized)"
    ], "the inner part is kept"


def test_another_model_keeps_its_conditioner_and_starts_anew_else():
    label = use("label", width=32)
    model = use("diffusion", conditioner=label, network=use("unet", channels=[8]), schedule="edm", sampler="heun")
    changed, notices = apply(Spec(model=model), ["model=denoising-gan"])
    assert changed.model == use("denoising-gan", conditioner=label)
    assert notices == [f"swap model: dropped network, schedule, sampler ({ANEW})", f"swap model: {GAME.format('*')}"]


def test_an_override_gives_another_model_what_it_would_drop(spec):
    gan = "model.prior={use: denoising-gan, schedule: vp}"
    changed, notices = apply(spec, [gan, "model.prior.sampler.num=8"])
    assert changed.at("model.prior") == use("denoising-gan", schedule="vp", sampler={"num": 8})
    assert notices[0] == f"swap model.prior: dropped network, sampler ({ANEW})"


def test_the_same_model_is_no_swap(spec):
    changed, notices = apply(spec, ["model.prior={use: diffusion, schedule: edm}", "model=latent"])
    assert changed == spec.with_value("model.prior.schedule", "edm")
    assert notices == []


def test_a_conditioner_that_the_model_does_not_take_is_dropped():
    model = use("diffusion", conditioner="label", sampler="heun")
    changed, notices = apply(Spec(model=model), ["model=latent"])
    assert changed.model == use("latent")
    assert notices == ["swap model: dropped conditioner (unknown to latent)", f"swap model: dropped sampler ({ANEW})"]


def test_parts_that_are_no_models_keep_what_fits_only():
    model = use("latent", autoencoder={"bottleneck": use("gaussian", channels=1)}, at=3)
    changed, notices = apply(Spec(model=model), ["model.autoencoder.bottleneck=identity", "model.prior=gan"])
    assert changed.model == use("latent", autoencoder={"bottleneck": "identity"}, at=3, prior="gan")
    assert notices[1:] == ["swap model.autoencoder.bottleneck: dropped channels (unknown to identity)"]


def test_what_is_no_part_is_dropped_from_a_slot():
    model = use("autoencoder", likelihood=3, regularizers=["r1"], weights={"kl": True, "nll": 1})
    changed, notices = apply(Spec(model=model), ["model=autoencoder"])
    assert changed.model == use("autoencoder")
    assert notices == [
        "swap model: dropped likelihood (autoencoder: expected a part, got 3)",
        "swap model: dropped regularizers (autoencoder: expected a mapping of parts, got a list)",
        "swap model: dropped weights (autoencoder: expected a part, got True)",
    ]


def test_a_piece_of_another_run_replaces_a_part_as_it_is(spec):
    piece = "model.autoencoder={use: run, path: runs/a, at: model.autoencoder}"
    changed, notices = apply(spec, ["model.autoencoder.train=true", piece, "model.prior.sampler=heun"])
    assert changed.at("model.autoencoder") == use("run", path="runs/a", at="model.autoencoder", train=True)
    assert changed.at("model.prior.sampler") == use("heun", steps=50)
    assert notices == ["swap model.prior.sampler: dropped eta (unknown to heun)"]
    assert changed.find_position("model.autoencoder.path") == Position("<override 2>", 1, 36)
    assert changed.before == spec
    back, notices = apply(changed, ["model.autoencoder=autoencoder"])
    assert (back.at("model.autoencoder"), notices) == ("autoencoder", [])


def test_a_path_leads_into_a_piece_that_is_written_out(spec):
    """The fault: what is inside the piece of a resolved spec had no path that an override could name."""
    piece = use("run", path="runs/a", at="model", train=False, part=spec.model)
    whole = Spec(model=piece)
    assert locate(whole, "sampler") == ["model.prior.sampler"]
    assert expand(whole, {"sampler"}, "sampler=heun") == "model.prior.sampler=heun"
    changed, notices = apply(whole, ["model.prior.sampler=heun", "model.train=true", "model.prior.sampler.steps=9"])
    alone, same = apply(spec, ["model.prior.sampler=heun", "model.prior.sampler.steps=9"])
    assert notices == same and changed.model == {**piece, "train": True, "part": alone.model}
    assert changed.at("model.prior.sampler") == changed.at("model.part.prior.sampler") == use("heun", steps=9)
    assert changed.find_position("model.prior.sampler").file == "<override 1>"
    replaced, _ = apply(whole, ["model=gan"])
    assert replaced.model["use"] == "gan"
    inside, _ = apply(whole, ["model.autoencoder={use: run, path: runs/b}"])
    assert inside.at("model.part.autoencoder") == use("run", path="runs/b")
    unread, _ = apply(Spec(model=use("run", path="runs/a")), ["model.prior.sampler=heun"])
    assert unread.at("model.prior.sampler") == "heun"  # the planner refuses the key


def test_a_reference_replaces_a_part_as_it_is(spec):
    overrides = ["model.prior.network.width=8", "model.prior.network={ref: model.autoencoder.encoder}"]
    changed, notices = apply(spec, overrides[1:])
    assert changed.at("model.prior.network") == {"ref": "model.autoencoder.encoder"}
    assert (changed.before, notices) == (spec, [])
    with pytest.raises(SpecError, match="ref"):
        apply(spec, overrides)


@pytest.mark.parametrize(("old", "new"), [("adam", "sgd"), ("sgd", "adam"), ("adam", "rmsprop"), ("sgd", "rmsprop")])
def test_a_scale_of_its_own_is_never_kept(spec, old, new):
    trained = spec.with_value("train", {"optimizer": use(old, lr=0.3, weight_decay=0.1)})
    changed, notices = apply(trained, [f"train.optimizer={new}"])
    assert changed.at("train.optimizer") == use(new, weight_decay=0.1)
    assert notices == [f"swap train.optimizer: dropped lr ({new if new != 'adam' else old} has a scale of its own)"]
    assert apply(trained, [f"train.optimizer={old}"])[0].at("train.optimizer.lr") == 0.3
    assert apply(trained, [f"train.optimizer={{use: {new}, lr: 2}}"])[0].at("train.optimizer.lr") == 2


def test_a_swap_of_models_renews_what_was_set_for_players(spec):
    own = {"optimizer": use("adam", lr=2e-4, betas=[0.5, 0.999])}
    players = {"*": {"clip": 1.0}, "autoencoder/*": {"clip": 2.0}, "prior/denoiser": {"every": 2}}
    stages = [{"players": ["autoencoder/*"], "steps": 3}, {"players": ["prior/*"], "steps": 4}]
    terms = {"prior/denoising": {"every": 2}, "autoencoder/kl": {"every": 2}}
    trained = spec.with_value("train", {"players": players, "stages": stages, "terms": terms})
    changed, notices = apply(trained, ["model.prior=gan"])
    kept = {name: players[name] for name in ("*", "autoencoder/*")}
    terms = {"autoencoder/kl": {"every": 2}}
    assert changed.train == {"players": {**kept, "prior/*": own}, "stages": stages, "terms": terms}
    assert notices[-2:] == [
        "swap model.prior: dropped train.players.prior/denoiser, train.terms.prior/denoising (the former model's)",
        f"swap model.prior: {GAME.format('prior/*')}",
    ]
    back, _ = apply(changed, ["model.prior={use: diffusion, network: mlp}"])
    assert back.train["players"] == kept
    assert apply(trained, ["model.prior.network=mlp", "model.prior=diffusion"])[0].train == trained.train
    whole, _ = apply(trained, ["model=diffusion"])
    assert whole.train == {"players": {"*": {"clip": 1.0}}, "stages": stages, "terms": {}}


def test_a_swap_of_models_keeps_what_is_set_for_whatever_players_there_are(spec):
    given = {"clip": 1.0, "optimizer": use("adam", lr=0.5)}
    trained = spec.with_value("train", {"players": {"prior/*": given}})
    changed, notices = apply(trained, ["model.prior=gan"])
    assert changed.train == trained.train and not [notice for notice in notices if "wrote" in notice]
    changed, _ = apply(spec.with_value("train", {"players": {"prior/*": {"clip": 1.0}}}), ["model.prior=gan"])
    own = changed.train["players"]["prior/*"]
    assert own["clip"] == 1.0 and own["optimizer"].use == "adam"


def test_settings_of_players_follow_the_names_that_an_enclosing_model_gives_them():
    model = use("latent", prior=use("cascade", level="autoregressive"))
    players = {"prior/level-0/network": {"clip": 1.0}, "prior/level-*": {"clip": 2.0}}
    changed, _ = apply(Spec(model=model, train={"players": players}), ["model.prior.level=gan"])
    assert list(changed.train["players"]) == ["prior/level-*", "prior/level-*/*"]
    assert changed.train["players"]["prior/level-*/*"]["optimizer"].use == "adam"


def test_a_spec_remembers_what_it_was_before_its_swaps(spec):
    changed, _ = apply(spec, ["model.prior.sampler=heun", "model.prior.sampler.steps=3"])
    assert changed.before == spec and spec.before is None
    assert apply(spec, ["model.prior.sampler.steps=3"])[0].before is None
    again, _ = apply(changed, ["model.prior=gan"])
    assert again.before == changed and again.before.before == spec
    assert Spec.from_yaml(again.to_yaml()) == again


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("sampler=ddim", "model.prior.sampler"),
        ("sampler.steps=4", "model.prior.sampler.steps"),
        ("lr=1e-3", "train.optimizer.lr"),
        ("std=.05", "train.ema.std"),
        ("steps=5", "train.steps or model.prior.sampler.steps"),
        ("channels=[8]", "model.autoencoder.encoder.channels or model.autoencoder.bottleneck.channels or model"),
        ("modle=gan", "'model'?"),
    ],
)
def test_a_bare_name_is_refused_with_the_paths_that_it_may_mean(spec, override, meant):
    with pytest.raises(SpecError) as error:
        apply(spec, [override, "train.seed=1"])
    (problem,) = error.value.problems
    assert problem.hint and problem.hint.startswith(f"did you mean {meant}") and problem.position


def test_parts_in_a_mapping_of_slots_are_swapped():
    spec = Spec(model=use("autoencoder", weights={"kl": 1e-3, "nll": 1.0}))
    changed, _ = apply(spec, ["model.weights.kl.steps=10", "model.weights.kl=warmup", "model.weights.nll=2"])
    assert changed.model["weights"] == {"kl": use("warmup", steps=10), "nll": 2}


def test_swaps_go_from_the_outside_in(spec):
    overrides = ["model.prior.generator.channels=[8]", "model.prior.generator=dcgan", "model.prior=gan"]
    changed, notices = apply(spec, overrides)
    assert changed.at("model.prior") == use("gan", generator=use("dcgan", channels=[8]))
    assert notices[0] == f"swap model.prior: dropped network, schedule, sampler ({ANEW})"


def test_short_forms_and_default_parts_expand_where_a_path_leads_into_them(spec):
    changed, _ = apply(spec, ["model.prior.schedule.num=100", "model.prior.times=log-normal"])
    assert changed.at("model.prior.schedule") == use("cosine", num=100)
    assert changed.at("model.prior.times") == "log-normal"
    bare, _ = apply(Spec(model=use("latent")), ["model.prior.sampler=heun", "model.prior.sampler.steps=3"])
    assert bare.model == use("latent", prior={"sampler": use("heun", steps=3)})


def test_data_and_optimizers_are_slots_and_other_settings_are_not(spec):
    changed, notices = apply(
        spec.with_value("data", use("digits", size=16)).with_value("train.optimizer", use("adamw", lr=0.1)),
        ["train.optimizer=adam", "train.device=cpu", "data.size=8"],
    )
    assert changed.train == {"optimizer": use("adam", lr=0.1), "device": "cpu"}
    assert changed.data == use("digits", size=8)
    assert notices == []


def test_slots_inside_the_settings_are_slots(spec):
    """The fault: parts in the settings of players, watching, loggers and engines were replaced without a word."""
    train = {
        "players": {"critic": {"optimizer": use("adam", lr=1e-5, momentum=0.5)}},
        "engine": use("ddp", unused=True),
    }
    evaluate = {"watch": {"metrics": [use("kd", subset_size=9)]}, "metrics": [use("prdc", k=4)]}
    spec = Spec(model=spec.model, train=train, evaluate=evaluate)
    changed, notices = apply(
        spec,
        [
            "train.players.critic.optimizer=adamw",
            "train.players.critic.optimizer.weight_decay=0.5",
            "train.engine=local",
            "evaluate.watch.metrics[0]=fd",
            "evaluate.metrics[0].k=3",
        ],
    )
    assert changed.train["players"]["critic"]["optimizer"] == use("adamw", lr=1e-5, weight_decay=0.5)
    assert changed.train["engine"] == "local" and changed.evaluate["watch"]["metrics"] == ("fd",)
    assert changed.evaluate["metrics"] == (use("prdc", k=3),)
    assert [notice.partition(" (")[0] for notice in notices] == [
        "swap train.engine: dropped unused",
        "swap train.players.critic.optimizer: dropped momentum",
        "swap evaluate.watch.metrics[0]: dropped subset_size",
    ]


test_wrong_overrides_are_refused = refusals(
    ("steps", r"1: got 'steps', expected path=value"),
    ("=3", r"1: got '', expected a path such as"),
    ("a..b=3", r"1: got 'a\.\.b', expected a path such as"),
    ("model.x=[1", r"11: model\.x: invalid YAML"),
    ("model.x={a: [.nan]}", r"14: model\.x\.a\[0\]: got \.nan, expected a finite number"),
    ("model.x=!!python/name:os.system", r"9: model\.x: invalid YAML: got a tag"),
    ("modle.x=1", r"9: modle: got a path that does not exist, .*did you mean 'model'\?"),
    ("model.prior.sampler=dimm", r"21: model\.prior\.sampler: no sampler is called 'dimm'.*'ddim'"),
    ("model.prior.sampler={use: [1]}", r"21: model\.prior\.sampler: got use: a list, expected a part's"),
    ("model=3", r"7: model: got 3, expected a mapping or a part's name"),
    ("model.autoencoder.weights.kl.x=1", r"32: model\.autoencoder\.weights\.kl: got 0\.001, expected a map"),
    ("train.steps.x[0]=1", r"18: train\.steps\.x\[0\]: got an index into null"),
    of=lambda override: apply(Spec.from_yaml(SAMPLE, "f"), [override]),
    error=SpecError,
    start="<override 1>:1:",
)


def test_all_malformed_overrides_are_told_at_once(spec):
    with pytest.raises(SpecError, match="<override 1>") as caught:
        apply(spec, ["a", "train.seed=1", "b"])
    assert [problem.position.file for problem in caught.value.problems] == ["<override 1>", "<override 3>"]


def test_a_reference_is_replaced_but_not_entered():
    spec = Spec(model=use("latent", prior={"autoencoder": {"ref": "model.autoencoder"}}))
    with pytest.raises(SpecError, match="got a reference to model.autoencoder; set 'encoder' at that path instead"):
        apply(spec, ["model.prior.autoencoder.encoder=conv"])
    spec = Spec(model=use("latent", prior=use("latent", autoencoder={"ref": "model.autoencoder"})))
    changed, notices = apply(spec, ["model.prior.autoencoder=autoencoder"])
    assert changed.at("model.prior.autoencoder") == "autoencoder"
    assert notices == []


def test_locate_finds_slots_of_default_parts_too(spec):
    assert locate(spec, "sampler") == ["model.prior.sampler"]
    assert locate(spec, "encoder") == ["model.autoencoder.encoder"]
    assert locate(Spec(model=use("latent")), "guidance") == ["model.prior.guidance"]
    assert locate(Spec(model=use("gan")), "sampler") == []
    nested = Spec(model=use("latent", prior=use("latent", autoencoder={"ref": "model.autoencoder"})))
    assert locate(nested, "autoencoder") == ["model.autoencoder", "model.prior.autoencoder"]
    assert locate(nested, "encoder") == ["model.autoencoder.encoder"]


def test_short_names_one_slot(spec):
    names = {"sampler", "guidance"}
    assert expand(spec, names, "sampler=ddim") == "model.prior.sampler=ddim"
    assert expand(spec, names, "guidance.scale=3") == "model.prior.guidance.scale=3"
    assert expand(spec, names, "model.prior.sampler=x") == "model.prior.sampler=x"
    guided = Spec(model=use("diffusion", guidance="autoguidance"))
    assert expand(guided, names, "sampler=ddim") == "model.sampler=ddim"
    assert expand(guided, names, "guidance.scale=3") == "model.guidance.scale=3"


test_wrong_short_names_are_refused = refusals(
    (
        "latent",
        "smapler=x",
        r"smapler: `smapler` cannot be changed here; .* or one of: guidance, sampler .*did you mean 'sampler'\?",
    ),
    ("gan", "sampler=x", "sampler: the model has no such slot, expected one of: none"),
    ("gan", "sampler", "<override>:1:1: got 'sampler', expected path=value"),
    of=lambda model, override: expand(Spec(model=use(model)), {"sampler", "guidance"}, override),
    error=SpecError,
)


def test_a_string_is_no_list_of_overrides(spec):
    """The fault: each of its letters was an error of its own."""
    with pytest.raises(SpecError, match=r"^got the string 'name=a', expected a list of overrides: \['name=a'\]$"):
        apply(spec, "name=a")


def test_a_short_name_of_several_slots_lists_their_paths():
    spec = Spec(model=use("latent", prior=use("latent")))
    message = r"2 slots have, expected one of model\.autoencoder\.encoder, model\.prior\.auto"
    with pytest.raises(SpecError, match=message):
        expand(spec, {"encoder"}, "encoder=conv")


def test_other_data_do_not_keep_the_features_that_the_former_data_name_as_their_own():
    """The fault: photos were compared by what a classifier of digits sees in them, without a word."""
    shipped = use("classifier", weights="digits")
    evaluate = {"features": shipped, "num": 8}
    said = "dropped evaluate.features (classifier:digits suits the former data; those that suit the new data are used)"
    changed, notices = apply(Spec(model="gan", data="digits", evaluate=evaluate), ["data=image-folder", "data.root=a"])
    assert changed.evaluate == {"num": 8} and notices == [f"swap data: {said}"]
    wrapped = Spec(model="gan", data=use("augmented", data=use("digits", size=8)), evaluate=evaluate)
    changed, notices = apply(wrapped, ["data.data=sprites"])
    assert changed.evaluate == {"num": 8} and notices[-1] == f"swap data.data: {said}"
    for spec, override in (
        (wrapped, "data.data.size=16"),
        (Spec(model="gan", data="digits", evaluate=evaluate), "data={use: digits, size: 16}"),
        (Spec(model="gan", data="digits", evaluate={"features": "inception"}), "data=sprites"),
        (Spec(model="gan", data="digits", evaluate={"features": use("classifier", weights="my.pt")}), "data=sprites"),
        (Spec(model="gan", data="sprites", evaluate=evaluate), "data=fashion-mnist"),
    ):
        assert apply(spec, [override])[0].evaluate == spec.evaluate
    given = ["data=sprites", "evaluate.features={use: classifier, weights: digits}"]
    assert apply(Spec(model="gan", data="digits", evaluate=evaluate), given)[0].evaluate["features"] == shipped


@pytest.mark.parametrize(
    "given, expected",
    [
        (["model.b=2", "model.a=1"], ["model.a=1", "model.b=2"]),
        (["model.a=4", "model.a=3"], ["model.a=3"]),
        (["model.a=3", "model.a=abc"], ["model.a=abc"]),
        (["model.s.steps=2", "model.s=ddim"], ["model.s=ddim", "model.s.steps=2"]),
        (["model.s.use=ddim", "model.s={use: heun, steps: 3}"], ["model.s={use: heun, steps: 3}"]),
        (["model.s=ddim", "model.s={steps: 2}"], None),  # both count
        (["model.s={steps: 2}", "model.s.use=ddim"], None),
        (["model.g.scale=3", "model.g=null"], None),  # the second replaces the first
        (["model.g={scale: 2}", "model.g.scale=3"], None),
        (["model.b=1", "model.a"], None),  # malformed
    ],
)
def test_overrides_have_a_normal_form_where_their_order_has_no_meaning(given, expected):
    assert list(normalize(given)) == (expected or given)
