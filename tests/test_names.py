"""Names: functions and methods start with a verb in the imperative mood (`make_metrics`, `score`, `resize`)."""

import ast
import re
from collections import Counter
from pathlib import Path

import modkit

FOLDER = Path(modkit.__file__).parent
OTHERS = {"starters", "templates"}
"""Folders of code that users copy, to which this does not apply."""

VERBS = set(
    """
    accumulate activate adapt add agree allocate announce append apply ask assemble assign attempt attend average
    await backward begin branch broadcast build call cap cast catch change check choose clamp clear clip close collect
    combine compare compile complete compose compute concatenate condense convert convolve copy count create crop
    cut decide declare decode decompose deduplicate dequantize derive descend describe diagnose differ differentiate
    digest disable discover discriminate divide download draw drop dump echo embed emit encode end enlarge enter
    equalize equip escape estimate evaluate examine exchange execute expand expect explain export extend extract
    extrapolate factor
    fail feed fill filter find finish fit flatten fold follow format forward freeze gate gather generate get group
    guard guide hash hide hold identify import index infer init insert inspect install integrate interpolate invert join
    judge keep launch lay learn limit list load locate lock log make map mark match measure merge migrate mirror mix
    move name narrow normalize note notify number observe open order override pack pad parametrize parse pass penalize
    perturb
    pin place plan play poll predict prefer prefix prepare print probe project prune queue quote raise rank read
    rebase rebuild recompute reconstruct record recover reduce refuse register release reload remove rename render
    renew repeat replace replay report require resample reset resize resolve restart restore resume review revise revive
    rewind round run sample save scale scan schedule score seed select send set settle share shift shorten show slice
    smooth sort space spill split spread squash start step stream stretch strip suggest sum swap sweep sync
    synchronize synthesize tag take tap thaw thin train transform translate traverse truncate try tune unpack unscale
    update use vacate validate verify view wait walk warn warp watch weigh widen withdraw wrap write zero
    """.split()
)
"""The verbs in use. Add one when a new function needs it, but no noun and no participle (`made`, `scored`)."""

CONDITIONS = set("can classifies dominates has holds is makes may plays shrinks takes uses wants".split())
"""First words of functions that return a bool."""

IDIOMS = {"as", "from", "to", "with"}
"""First words of conversions and modified copies, as in `from_yaml`, `Tensor.to` and `Path.with_suffix`."""

HOOKS = {"modkit", "pytest"}
"""First words of hooks and fixtures, whose names pluggy and pytest prescribe."""

TERMS = {
    # Members that the Protocols in modkit.kinds prescribe; authors of plug-ins write them.
    "Protocol of Adversarial": "discriminator generator",
    "Protocol of Bijection": "inverse",
    "Protocol of Conditioner": "null",
    "Protocol of Engine": "barrier",
    "Protocol of Exchange": "rank total world",
    "Protocol of FeatureExtractor and Data": "key",
    "Protocol of Likelihood": "mean nll out",
    "Protocol of Metric and MetricExtras": "given result",
    "Protocol of Model": "bound cross_entropy denoiser losses players stages weights",
    "Protocol of Generator's extras": "styles synthesis",
    "Protocol of Bottleneck's extras": "posterior posterior_entropy posterior_moments",
    "Protocol of Parametrization": "coefficients denoised error_scale inputs",
    "Protocol of Sampler and Schedule": "scales time times",
    "Protocol of Slot": "accepts default",
    # Names that other libraries prescribe.
    "click.Command": "invoke",
    "IPython": "repr_html_ repr_png_",
    "numpy.random.Generator": "integers normal uniform",
    "pandas' accessors": "at rows",
    "subprocess.Popen": "terminate",
    "torch": "setup_context state_dict",
    # Terms of the field.
    "quantities": """
        bits_per_dim covariance gaussian_kl jackknife_variance median mode_kl perplexity snr standard_error
        symmetric_kl tau
    """,
    "scores": "frechet_distance kernel_distance psnr sliced_wasserstein ssim wasserstein",
    "algorithms": "ddim_step kmeans minibatch_std rotation_trick straight_through variational_bound",
    "parts, named as users select them": "adam adamw constant cosine dinov2 inverse_root linear rmsprop sgd",
    "layers, named as torch.nn's": "conv linear pointwise sinusoidal_embedding",
    "a method of torch's spectral norm": "power_method",
    # Names that users meet.
    "commands": "app diff doctor main new_plugin schema",
    "context manager": "seeded",
    "decorators": "checked recorded",
    "accessor of a model": "spec_of",
    "events of a run, as in other training loops": """
        checkpoint_saved run_finished run_started samples_ready scores_ready step_done
    """,
}
"""Whole names that are terms, by where they come from."""

NAMES = {name for names in TERMS.values() for name in names.split()}


SHARED = 38
"""Number of names that several public classes have. It only falls; rename the class that fewer people meet."""


def find_shared(sources):
    """Names of public classes that are defined more than once in these modules, nested classes included."""
    nodes = (node for source in sources for node in ast.walk(ast.parse(source)))
    found = Counter(node.name for node in nodes if isinstance(node, ast.ClassDef) and not node.name.startswith("_"))
    return sorted(name for name, num in found.items() if num > 1)


def find_names(source):
    """Names of a module's functions and methods, without dunders, properties and nested functions."""
    tree = ast.parse(source)
    bodies = [tree.body, *(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    for node in (node for body in bodies for node in body):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        decorators = [ast.unparse(one) for one in node.decorator_list]
        if not node.name.startswith("__") and not any(re.search(r"property$|\.setter$", one) for one in decorators):
            yield node.name


def is_allowed(name):
    """Whether a name starts with a verb, or is one of the exceptions above."""
    word = name.strip("_").split("_")[0]
    return name.lstrip("_") in NAMES or word in VERBS | CONDITIONS | IDIOMS | HOOKS


def list_modules():
    """Lists modkit's modules, without code that users copy."""
    return [path for path in sorted(FOLDER.rglob("*.py")) if path.relative_to(FOLDER).parts[0] not in OTHERS]


def test_functions_are_verbs():
    wrong = {
        str(path.relative_to(FOLDER)): names
        for path in list_modules()
        if (names := [name for name in find_names(path.read_text()) if not is_allowed(name)])
    }
    assert not wrong


def test_names_are_found_in_modules_and_classes_and_judged():
    source = """
def made_metrics(): ...
class Metric:
    class Inner:
        async def scored(self): ...
    @cached_property
    def seen(self): ...
    @functools.cached_property
    def told(self): ...
    def __len__(self): ...
    def _resize(self):
        def resized(): ...
"""
    assert list(find_names(source)) == ["made_metrics", "_resize", "scored"]
    names = ("made_metrics", "scored", "_sizes", "_find", "is_due", "rows", "_rows_of", "to_yaml")
    assert [name for name in names if is_allowed(name)] == ["_find", "is_due", "rows", "to_yaml"]


def test_few_names_of_public_classes_are_shared():
    plugins = [path for path in (Path(__file__).parents[1] / "plugins").rglob("*.py") if "tests" not in path.parts]
    shared = find_shared(path.read_text() for path in [*list_modules(), *plugins])
    assert len(shared) == SHARED, shared


def test_classes_of_one_name_are_found_in_one_module_or_two_unless_private():
    sources = ["class A: ...\nclass B: ...\nclass _C: ...", "class B:\n    class D: ...\nclass D: ...\nclass _C: ..."]
    assert find_shared(sources) == ["B", "D"]
