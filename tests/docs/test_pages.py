"""Every code block of the documentation and README.md is carried out, in order; `reader` says how.

So are those of the plug-ins' pages that need no downloads.
"""

import numpy as np
import pytest
from PIL import Image

from tests.commit import list_changed
from tests.docs.blocks import ROOT, blocks, pages
from tests.docs.here import Here
from tests.docs.reader import Reader

PLUGINS = ROOT / "plugins"
ALWAYS = {"README.md", *list_changed()}
CARRIED_OUT = [f"plugins/modkit-{name}/README.md" for name in ("diffusers", "quantizers", "sklearn", "trackers")]
INSTALLING = ("docs/tutorials/first-part.md", "docs/tutorials/ship-a-plugin.md")  # `test_tutorials` reads these


def make_pictures(folder):
    """Folders of pictures."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 16, 16), dtype=np.uint8)
    for name in ("DIR", "photos"):
        (folder / name).mkdir()
        for index, picture in enumerate(pixels):
            Image.fromarray(picture).save(folder / name / f"{index}.png")


def what_diffusers_takes_for_granted(folder):
    """A folder that diffusers saved."""
    from diffusers import AutoencoderKL  # slow to import

    down, up = (f"{way}Block2D" for way in ("DownEncoder", "UpDecoder"))
    config = {"block_out_channels": (8, 8), "down_block_types": (down, down), "up_block_types": (up, up)}
    AutoencoderKL(1, 1, norm_num_groups=4, latent_channels=2, **config).save_pretrained(folder / "models" / "vae")


EXTRAS = {
    "--features inception": "[fid]",
    "--features dinov2": "[timm]",
    "--features clip": "[timm]",
    "torchvision/": "[torchvision]",
    "trackers/": "modkit-trackers[",
    "use: tensorboard": "[tensorboard]",
    "loggers=[tensorboard]": "[tensorboard]",
}

GRANTED = {
    "docs/commands.md": make_pictures,
    "docs/measuring.md": make_pictures,
    "plugins/modkit-diffusers/README.md": what_diffusers_takes_for_granted,
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' use of numpy
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[] if page in ALWAYS else [pytest.mark.wide(10)])
        for page in (*(page for page in pages() if page not in INSTALLING), *CARRIED_OUT)
    ],
)
def test_every_block_does_what_it_says(page, tmp_path, monkeypatch, pytestconfig):
    shell = Here(monkeypatch, tmp_path, full=pytestconfig.getoption("--full"))
    GRANTED.get(page, lambda folder: None)(tmp_path)
    reader = Reader(tmp_path, shell)
    print(page, dict(reader.read(page)))
    assert not reader.wrong, "\n\n".join(reader.wrong)


@pytest.mark.parametrize("page", [*pages(), *(f"plugins/{path.name}/README.md" for path in sorted(PLUGINS.iterdir()))])
def test_what_a_command_uses_is_installed_on_its_page(page):
    commands = "\n".join(block.text for block in blocks(page))
    for used, extra in EXTRAS.items():
        before, found, _ = commands.partition(used)
        assert not found or extra in before, f"{page} uses {used} and installs no {extra} before"
