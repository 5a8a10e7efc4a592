from modkit.models.player import Player, prefix_player


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
