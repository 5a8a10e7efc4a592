import sys

import numpy as np
import torch

from modkit.ops.noise import compute_noise, draw_noise_reference, make_state
from tests.ops.guards import Guards, guard

KEYS = 500 if "--full" in sys.argv else 50
PLACES = [  # rows, columns and first row: one tile, several a row, several rows a tile
    (1, 1, 0),
    (3, 65, 1),
    (5, 64, 2**61 - 1),  # the low word of the counter overflows at the second row
    (2, 500, 2**62 + 3),  # and before the first
    (1, 2100, 2**33 + 7),
]


def draw(state, num, size, law="normal", dtype=torch.float32, low=0, high=1):
    from modkit.ops.noise_triton import launch_noise

    with Guards():
        return launch_noise(guard(state), num, size, law, low, high, dtype)


def refer(state, num, size, law="normal", low=0, high=1):
    return draw_noise_reference(state.numpy().tobytes(), num, size, law, low, high)


def check_words():
    keys = np.random.default_rng(0).bytes(16 * KEYS)
    for index in range(KEYS):
        num, size, first = PLACES[index % 4]
        state = make_state(keys[16 * index :][:16], first, size)
        words = draw(state, num, size, "integers", torch.int64, 0, 2**32)
        assert torch.equal(words, refer(state, num, size, "integers", 0, 2**32)), index


def check_every_law_and_dtype():
    for num, size, first in PLACES:
        state = make_state(bytes(range(16)), first, size)
        uniform, normal = (refer(state, num, size, law) for law in ("uniform", "normal"))
        for dtype in (torch.float32, torch.float64, torch.float16):
            assert torch.equal(draw(state, num, size, "uniform", dtype), uniform.to(dtype))
        ulps = draw(state, num, size).view(torch.int32) - normal.view(torch.int32)
        assert ulps.abs().max() <= 3  # of numpy's logarithm and cosine, which differ among processors
        half = draw(state, num, size, dtype=torch.float16)
        torch.testing.assert_close(half.float(), normal, rtol=2**-11 + 1e-6, atol=2**-25)
        for low, high in ((-5, 2), (0, 1), (-(2**40), -(2**40) + 2**31)):
            integers = draw(state, num, size, "integers", torch.int64, low, high)
            assert torch.equal(integers, refer(state, num, size, "integers", low, high))


def check_rows_do_not_depend_on_the_split():
    whole = draw(make_state(bytes(16), 2**33, 130), 9, 130)
    for row in range(9):
        assert torch.equal(draw(make_state(bytes(16), 2**33 + row, 130), 1, 130)[0], whole[row])


def check_nothing_is_drawn_for_no_rows_and_no_columns():
    for num, size in ((0, 5), (3, 0)):
        assert draw(make_state(bytes(16), 0, size), num, size).shape == (num, size)


def check_the_op_reads_its_state_when_it_runs():
    state, drawn = make_state(bytes(16), 0, 3), []
    for first in (0, 4):
        state.copy_(make_state(bytes(16), first, 3))
        drawn.append(compute_noise(state, 2, 3, "uniform", 0, 1, torch.float32))
        assert torch.equal(drawn[-1], refer(state, 2, 3, "uniform"))
    assert not torch.equal(*drawn)
