import pytest

from modkit.models.player import Player, prefix_player
from tests.refusals import check_refusal


@pytest.mark.parametrize("turns", [{"every": 0}, {"start": -1}], ids=str)
def test_turns_before_the_stage_or_without_end_are_refused(turns):
    every, start = turns.get("every", 1), turns.get("start", 0)
    expected = f"Player one expects every of at least 1 and start of at least 0, got {every} and {start}"
    check_refusal(expected, Player, "one", (), **turns)


def test_a_nested_player_s_paths_names_and_opponents_stand_under_the_attribute():
    inner = Player("autoencoder", ("encoder", "decoder"), 2, 3, ("critic",), "decoder.out.weight")
    want = Player(
        "prior/autoencoder",
        ("prior.encoder", "prior.decoder"),
        2,
        3,
        ("prior/critic",),
        "prior.decoder.out.weight",
    )
    assert prefix_player(inner, "prior") == want
    twice = prefix_player(prefix_player(Player("a", ("b",)), "prior"), "outer")
    assert twice == Player("outer/prior/a", ("outer.prior.b",))
