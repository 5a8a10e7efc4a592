"""Seeded mutations of bytes, whatever their format; each changes a `bytearray` in place."""

__all__ = ["flip", "repeat", "truncate"]


def flip(data, rng):
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def truncate(data, rng):
    del data[rng.randrange(len(data)) :]


def repeat(data, rng):
    first, last = sorted(rng.sample(range(len(data)), 2))
    data[last:last] = data[first:last] * rng.choice([1, 2, 50])
