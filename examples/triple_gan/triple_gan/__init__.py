"""Triple-GAN and data with few labels, as parts of modkit. Importing this imports no torch."""

from modkit import Part, hookimpl


@hookimpl
def modkit_parts() -> list[Part]:
    """Returns the parts; modkit puts `triple/` before their names."""
    model = Part("model", "gan", "triple_gan.parts:TripleGAN", "Generator, classifier and critic (Li et al., 2017)")
    return [model, Part("data", "few-labels", "triple_gan.parts:FewLabels", "Samples beside a few that have labels")]
