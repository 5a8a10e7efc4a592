import pytest
import torch


@pytest.fixture(scope="session")
def images():
    """Two sets of images in 8 bits."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 24, 1, 8, 8), generator=generator, dtype=torch.uint8).unbind()


@pytest.fixture(scope="session")
def floats(images):
    """The same images in [-1, 1]."""
    return [one.float() / 127.5 - 1 for one in images]
