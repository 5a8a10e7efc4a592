import pytest

import modkit
from modkit.parts.adapters import suggest_adapters
from modkit.parts.registry import Registry, get_registry
from tests.parts.broken import make_source
from tests.plugin_factory import make_plugin


@pytest.mark.parametrize(
    ("kind", "name", "hint"),
    [
        ("decoder", "stylegan2", "did you mean {use: generated, generator: stylegan2}?"),
        ("encoder", "r3gan", "did you mean {use: critic-features, discriminator: r3gan}?"),
        ("encoder", "dinov2", "did you mean {use: frozen-features, features: dinov2}?"),
        ("alignment", "dinov2", "did you mean {use: features, features: dinov2}?"),
        ("bijection", "unet", "did you mean {use: coupling, network: unet}?"),
        ("bottleneck", "actnorm", ""),  # the slot of `gaussian` is optional
        ("sampler", "karras", ""),  # of many samplers
        ("decoder", "nothing", ""),
    ],
)
def test_a_part_of_another_kind_is_offered_where_an_adapter_takes_it(kind, name, hint):
    assert suggest_adapters(get_registry(), kind, name) == hint


def test_a_plugin_whose_signature_cannot_be_read_is_passed_over(site):
    make_plugin(site, "acme", make_source('[Part("decoder", "odd", "nowhere:Odd", "Odd")]'))
    assert suggest_adapters(Registry.load(), "decoder", "resnet") == "did you mean {use: generated, generator: resnet}?"


def test_a_spec_says_so_where_the_name_is_written():
    spec = modkit.Spec.from_yaml("{data: digits, model: {use: autoencoder, decoder: stylegan2}}")
    with pytest.raises(modkit.SpecError) as found:
        modkit.build(spec)
    (problem,) = found.value.problems
    assert (problem.path, problem.hint) == ("model.decoder", "did you mean {use: generated, generator: stylegan2}?")
    assert problem.position.column == 51
