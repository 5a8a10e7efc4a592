import pytest
import torch
from torch.autograd import forward_ad

from modkit.ops import kernel as module
from modkit.ops.kernel import KERNELS, Kernel, list_ran, read_mode


@pytest.fixture
def kernel(monkeypatch):
    """A kernel, and a record of what ran that begins empty."""
    monkeypatch.setattr(module, "_ran", {})
    monkeypatch.delenv("MODKIT_OPS", raising=False)
    module._choose.cache_clear()
    yield Kernel("test", size="values", smallest=10, cards={"H100": 5})
    del KERNELS["test"]
    module._choose.cache_clear()


@pytest.fixture
def card(monkeypatch):
    """As if there were a card: of which kind, and what keeps Triton from it."""

    def pretend(name="NVIDIA H100", obstacle=None):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
        monkeypatch.setattr(module, "_find_obstacle", lambda device: obstacle)
        return torch.device("cuda:0")

    return pretend


class OnCard:
    """Stands for a tensor on a card, of which only the device is asked."""

    device = torch.device("cuda:0")


def test_the_kernel_runs_on_a_card_from_the_size_at_which_it_is_faster_there(kernel, card):
    card()
    assert [kernel.is_due(OnCard, size) for size in (4, 5)] == [False, True]
    assert list_ran() == {"test": ["reference: fewer than 5 values", "triton"]}
    module._choose.cache_clear()
    card("NVIDIA A100")
    assert [kernel.is_due(OnCard, size) for size in (9, 10)] == [False, True]


def test_tensors_elsewhere_get_the_reference(kernel):
    assert not kernel.is_due(torch.zeros(1), 100) and not kernel.is_due(torch.zeros(1, device="meta"), 100)
    assert list_ran() == {"test": ["reference: tensors on cpu", "reference: tensors on meta"]}


def test_reference_is_chosen(kernel, card, monkeypatch):
    monkeypatch.setenv("MODKIT_OPS", "reference")
    card()
    assert not kernel.is_due(OnCard, 100)
    assert list_ran() == {"test": ["reference: MODKIT_OPS=reference"]}


def test_triton_is_chosen_at_any_size_or_refused_with_the_reason(kernel, card, monkeypatch):
    monkeypatch.setenv("MODKIT_OPS", "triton")
    card()
    assert kernel.is_due(OnCard, 0) and not kernel.is_due(torch.zeros(1), 100)
    module._choose.cache_clear()
    card(obstacle="Triton is not installed")
    said = "^MODKIT_OPS=triton expects the kernel of test to run on cuda:0, but Triton is not installed; "
    with pytest.raises(ValueError, match=said):
        kernel.is_due(OnCard, 100)
    monkeypatch.setenv("MODKIT_OPS", "auto")
    assert not kernel.is_due(OnCard, 100)
    assert "reference: Triton is not installed" in list_ran()["test"]


def test_another_word_is_refused(kernel, monkeypatch):
    monkeypatch.setenv("MODKIT_OPS", "cuda")
    with pytest.raises(ValueError, match="^MODKIT_OPS expects one of auto, reference, triton, got 'cuda'$"):
        read_mode()


@pytest.mark.parametrize(
    ("version", "found", "said"),
    [(None, (9, 0), "Triton is not installed"),
     ("3.2.0", (9, 0), "Triton 3.2.0 is installed, and kernels need 3.3"),
     ("3.3.0", (7, 5), "the card's compute capability is 7.5, below 8.0"),
     ("3.10.0", (8, 0), None)],
)  # fmt: skip
def test_what_keeps_triton_from_a_card(monkeypatch, version, found, said):
    monkeypatch.setattr(module, "_find_version", lambda: version)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: found)
    assert module._find_obstacle.__wrapped__(torch.device("cuda:0")) == said


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's rules of tangents
def test_tangents_and_transforms_get_the_reference(kernel, card):
    card()
    seen = []

    def call(x):
        seen.append(kernel.is_due(OnCard, 100))
        return x * 2

    torch.func.jvp(call, (torch.ones(2),), (torch.ones(2),))
    torch.func.vmap(call)(torch.ones(2, 1))
    with forward_ad.dual_level():
        call(forward_ad.make_dual(torch.ones(2), torch.ones(2)))
    call(torch.ones(2))
    assert seen == [False, False, False, True]


def test_compiled_code_is_recorded_and_chooses_by_size(kernel, card):
    device = card()
    compiled = torch.compile(
        lambda x: x * 2 if module.choose("test", device).smallest <= x.numel() else x * 3,
        fullgraph=True, dynamic=True, backend="eager",
    )  # fmt: skip
    assert compiled(torch.ones(4)).sum() == 12 and compiled(torch.ones(6)).sum() == 12
    compiled = torch.compile(lambda x: kernel.is_due(x, x.numel()), fullgraph=True, backend="eager")
    assert compiled(torch.ones(4)) is False
    assert list_ran() == {"test": ["reference: tensors on cpu"]}
