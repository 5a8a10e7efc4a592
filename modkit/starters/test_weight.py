"""Values of the weight."""

from modkit.starters.weight import Cyclic


def test_it_rises_stays_and_begins_again() -> None:
    """Of a period of 8 steps, half of which it rises."""
    weight = Cyclic(value=2.0, period=8, rise=0.5)
    assert [weight(step, {}, None) for step in range(10)] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 0.0, 0.5]
