"""Kernels compile for cards, which takes none: Triton's interpreter accepts what its compiler does not."""

import importlib
import importlib.util
import os
import platform

import pytest

MISSING = importlib.util.find_spec("triton") is None
KINDS = {"taps": "*fp32", "half": "*fp32", "lowest": "*fp32", "index": "*i64", "state": "*i64"}
KINDS |= dict.fromkeys("means squares mean rstd parts_gain parts_offset slopes shifts".split(), "*fp32")
FIR = {"PADDING": 1, "STRIDE": 2, "TAPS": 4, "ROWS": 4}
NORM = {"PARTS": 8, "WIDE": 64, "LONG": 16, "stride_c": 1}
NEAREST = {"BLOCK_N": 128, "BLOCK_K": 128, "BLOCK_C": 32}
CASES = [
    ("nearest_triton", "_find_lowest", "z codebook half lowest index", NEAREST),
    ("fir_triton", "_filter", "x taps y", {**FIR, "BLOCK_C": 128, "BLOCK_W": 8, "x_c": 1, "y_c": 1}),
    ("fir_triton", "_spread", "x taps y", {**FIR, "BLOCK_C": 8, "BLOCK_W": 128, "x_w": 1, "y_w": 1}),
    ("group_norm_triton", "_measure", "x means squares", NORM),
    ("group_norm_triton", "_merge", "means squares mean rstd", {"PARTS": 8, "BLOCK": 1024}),
    ("group_norm_triton", "_apply", "x gain offset mean rstd y", NORM),
    ("group_norm_triton", "_sum", "grad x gain offset mean rstd parts_gain parts_offset", NORM),
    (
        "group_norm_triton", "_gather", "parts_gain parts_offset gain grad_gain grad_offset slopes shifts",
        {"PARTS": 8, "WIDE": 128},
    ),
    ("group_norm_triton", "_differentiate", "grad x gain offset mean rstd slopes shifts grad_x", NORM),
    ("noise_triton", "_draw", "state out", {"LAW": "normal", "LANES": 128, "WIDTH": 32}),
    ("noise_triton", "_draw", "state out", {"LAW": "integers", "LANES": 128, "WIDTH": 32}),
]  # fmt: skip
"""Module, kernel, its pointers, which are to bfloat16 if KINDS has no other, and its constants."""


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION is unset:UserWarning")
@pytest.mark.skipif(MISSING and "CI" not in os.environ, reason="Triton is not installed")
@pytest.mark.skipif(platform.system() != "Linux", reason="Triton compiles on Linux")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("module", "name", "pointers", "constants"), CASES)
def test_kernels_compile(module, name, pointers, constants, capability):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(f"modkit.ops.{module}"), name)
    signature = dict.fromkeys(kernel.arg_names, "i32") | dict.fromkeys(constants, "constexpr")
    signature |= {one: KINDS.get(one, "*bf16") for one in pointers.split()}
    source = ASTSource(kernel, signature, constexprs=constants)
    assert triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]
