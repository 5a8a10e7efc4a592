import pytest
import torch

from modkit.nn.conv import ConvDecoder, ConvEncoder
from modkit.types import CondType, TensorType
from tests.nn.modules import Written, conditions, narrow, randomized


def test_encoder_is_its_diagram():
    x = TensorType((3, 7, 10))
    encoder = randomized(ConvEncoder(x, channels=[4, 8, 12], blocks=2, attention=[3]).double(), 0.2)
    r = Written(encoder)
    x = torch.randn(2, 3, 7, 10, dtype=torch.float64)
    h = r.conv(x, "conv_in")
    for level in range(3):
        if level < 2:
            h = r.block(r.block(h, f"levels.{level}.0"), f"levels.{level}.1")
            h = r.conv(h, f"levels.{level}.2.conv", stride=2)
    h = r.attend(r.block(h, "levels.2.0"), "levels.2.1")
    h = r.attend(r.block(h, "levels.2.2"), "levels.2.3")
    expected = r.out(r.middle(h))
    torch.testing.assert_close(encoder(x), expected)


def test_decoder_is_its_diagram():
    x = TensorType((3, 7, 10))
    z = TensorType((5, 2, 3))
    decoder = randomized(ConvDecoder(z, x, channels=[12, 8, 4], blocks=2, attention=[3]).double(), 0.2)
    r = Written(decoder)
    z = torch.randn(2, 5, 2, 3, dtype=torch.float64)
    y = r.middle(r.conv(z, "conv_in"))
    y = r.attend(r.block(y, "levels.0.0"), "levels.0.1")
    y = r.attend(r.block(y, "levels.0.2"), "levels.0.3")
    for level, (h, w) in ((1, (4, 5)), (2, (7, 10))):
        y = y.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :h, :w]
        y = r.conv(y, f"doublings.{level - 1}.conv")
        y = r.block(r.block(y, f"levels.{level}.0"), f"levels.{level}.1")
    torch.testing.assert_close(decoder(z), r.out(y))


COND = CondType(vector=3, labels=4, concat=TensorType((2, 7, 10)))


def embed(r, cond):
    return r.linear(cond.vector, "embedding.vector") + r.p["embedding.labels.weight"][cond.labels]


def test_conditions_modulate_the_encoder_and_a_map_is_joined_to_x():
    x = TensorType((3, 7, 10))
    encoder = randomized(ConvEncoder(x, COND, channels=[4, 8]).double(), 0.2)
    x, cond, r = torch.randn(2, 3, 7, 10, dtype=torch.float64), conditions(COND, 2), Written(encoder)
    e = embed(r, cond)
    assert e.shape == (2, 16)
    h = r.block(r.conv(torch.cat([x, cond.concat], 1), "conv_in"), "levels.0.0", e)
    h = r.block(r.conv(h, "levels.0.1.conv", stride=2), "levels.1.0", e)
    expected = r.out(r.block(r.block(h, "middle.0", e), "middle.1", e))
    torch.testing.assert_close(encoder(x, cond), expected)


@pytest.mark.parametrize("levels", [2, 1])
def test_conditions_modulate_the_decoder_and_a_map_is_joined_at_the_size_of_x(levels):
    x, z = TensorType((3, 7, 10)), TensorType((5, 4, 5) if levels == 2 else (5, 7, 10))
    decoder = randomized(ConvDecoder(z, x, COND, channels=[8, 4][-levels:]).double(), 0.2)
    z, cond, r = torch.randn(2, *z.shape, dtype=torch.float64), conditions(COND, 2), Written(decoder)
    e = embed(r, cond)
    y = r.conv(z, "conv_in")
    if levels == 1:
        y = r.conv(torch.cat([y, cond.concat], 1), "conv_join")
    y = r.block(r.block(r.block(y, "middle.0", e), "middle.1", e), "levels.0.0", e)
    if levels == 2:
        y = r.conv(y.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :7, :10], "doublings.0.conv")
        y = r.block(r.conv(torch.cat([y, cond.concat], 1), "conv_join"), "levels.1.0", e)
    torch.testing.assert_close(decoder(z, cond), r.out(y))


def test_without_conditions_parameters_and_values_are_those_of_a_part_that_takes_none():
    x, z = TensorType((1, 8, 8)), TensorType((2, 4, 4))
    for make, given in ((lambda *cond: ConvEncoder(x, *cond), x), (lambda *cond: ConvDecoder(z, x, *cond), z)):
        torch.manual_seed(0)
        bare = make()
        torch.manual_seed(0)
        part = make(CondType())
        assert not [name for name in part.state_dict() if "embedding" in name or "film" in name or "join." in name]
        assert all(torch.equal(a, b) for a, b in zip(bare.state_dict().values(), part.state_dict().values()))
        value = torch.randn(2, *given.shape)
        assert torch.equal(bare(value), part(value))


def test_a_hierarchy_of_features_is_taken_where_its_levels_end():
    x = TensorType((3, 7, 10))
    encoder = randomized(ConvEncoder(x, channels=[4, 8, 12], levels=[5, 3]).double(), 0.2)
    assert encoder.h == (TensorType((12, 2, 3)), TensorType((8, 4, 5)))
    r = Written(encoder)
    x = torch.randn(2, 3, 7, 10, dtype=torch.float64)
    h = r.conv(r.block(r.conv(x, "conv_in"), "levels.0.0"), "levels.0.1.conv", stride=2)
    fine = r.block(h, "levels.1.0")
    h = r.block(r.conv(fine, "levels.1.1.conv", stride=2), "levels.2.0")
    coarse = r.out(r.block(r.block(h, "middle.0"), "middle.1"))
    fine = r.conv(r.norm_silu(fine, "heads.1.0"), "heads.1.2")
    maps = encoder(x)
    assert len(maps) == 2
    torch.testing.assert_close(maps[0], coarse)
    torch.testing.assert_close(maps[1], fine)


def test_a_hierarchy_of_latents_is_joined_where_its_levels_begin():
    x, z = TensorType((3, 7, 10)), (TensorType((5, 2, 3)), TensorType((2, 7, 10)))
    decoder = randomized(ConvDecoder(z, x, channels=[12, 8, 4]).double(), 0.2)
    r = Written(decoder)
    coarse, fine = (torch.randn(2, *one.shape, dtype=torch.float64) for one in z)
    y = r.block(r.block(r.conv(coarse, "conv_in"), "middle.0"), "middle.1")
    y = r.block(y, "levels.0.0")
    for level, (h, w) in ((1, (4, 5)), (2, (7, 10))):
        y = r.conv(y.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :h, :w], f"doublings.{level - 1}.conv")
        if level == 2:
            y = r.conv(torch.cat([y, fine], 1), "joins.2")
        y = r.block(y, f"levels.{level}.0")
    torch.testing.assert_close(decoder((coarse, fine)), r.out(y))


@pytest.mark.parametrize(("shape", "levels"), [((2, 13), [7, 2]), ((1, 9, 6), [9, 5, 2]), ((2, 5, 6, 7), [4, 1])])
def test_hierarchies_of_any_rank_and_size_come_back(shape, levels):
    x = TensorType(shape)
    encoder = randomized(ConvEncoder(x, channels=[4, 8, 8, 12], levels=levels), 0.2)
    decoder = randomized(ConvDecoder(encoder.h, x, channels=[12, 8, 8, 4]), 0.2)
    h = encoder(torch.randn(2, *shape))
    assert tuple(one.shape[1:] for one in h) == tuple(type.shape for type in encoder.h)
    assert [max(type.shape[1:]) for type in encoder.h] == sorted(levels)
    y = decoder(h)
    assert y.shape[1:] == shape
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in [*encoder.parameters(), *decoder.parameters()])


def test_one_level_has_the_parameters_that_it_had():
    x = TensorType((1, 16, 16))
    plain, tall = ConvEncoder(x), ConvEncoder(x, levels=[16, 8])
    assert tall.state_dict().keys() - plain.state_dict().keys() == {
        f"heads.0.{i}.{name}" for i in (0, 2) for name in ("weight", "bias")
    }
    tall.load_state_dict({**tall.state_dict(), **plain.state_dict()})
    data = torch.randn(2, 1, 16, 16)
    assert torch.equal(tall(data)[0], plain(data))


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 7, 9), (2, 13), (1, 1), (2, 5, 6, 7)])
@pytest.mark.parametrize("channels", [[8], [8, 12], [4, 8, 8, 12]])
def test_types_agree_with_values_at_any_size(shape, channels):
    x = TensorType(shape)
    encoder = ConvEncoder(x, channels=channels)
    assert isinstance(encoder.h, TensorType)
    decoder = ConvDecoder(encoder.h, x, channels=channels[::-1])
    h = encoder(torch.randn(2, *shape))
    assert h.shape[1:] == encoder.h.shape
    assert encoder.h.shape == (channels[-1], *(-(-n // 2 ** (len(channels) - 1)) for n in shape[1:]))
    assert decoder(h).shape[1:] == shape


@pytest.mark.parametrize("rank", [2, 3])
def test_a_signal_is_an_image_of_width_one(rank):
    ones = (1,) * (rank - 1)
    thin, flat = TensorType((2, 11, *ones)), TensorType((2, 11))
    size = {"channels": [8, 12], "attention": [6]}
    encoders = ConvEncoder(thin, **size).double(), ConvEncoder(flat, **size).double()
    size = {"channels": [12, 8], "attention": [6]}
    decoders = ConvDecoder(encoders[0].h, thin, **size).double(), ConvDecoder(encoders[1].h, flat, **size).double()
    for wide, thinner in (encoders, decoders):
        thinner.load_state_dict(narrow(randomized(wide, 0.2)))
    x = torch.randn(2, 2, 11, dtype=torch.float64)
    h = encoders[1](x)
    torch.testing.assert_close(encoders[0](x.reshape(2, 2, 11, *ones)).flatten(2), h)
    torch.testing.assert_close(decoders[0](h.reshape(*h.shape, *ones)).flatten(2), decoders[1](h))


def test_attention_stands_at_the_resolutions_named():
    plain = ConvEncoder(TensorType((1, 16, 12)), channels=[4, 4, 4])
    attentive = ConvEncoder(TensorType((1, 16, 12)), channels=[4, 4, 4], attention=[8])
    extra = {key.rsplit(".", 2)[0] for key in attentive.state_dict().keys() - plain.state_dict().keys()}
    assert "levels.1.1" in extra and not any(key.startswith(("levels.0", "levels.2", "middle")) for key in extra)
    with pytest.raises(
        ValueError, match=r"ConvEncoder expects attention at resolutions among \[16, 8, 4\], got \[12\]"
    ):
        ConvEncoder(TensorType((1, 16, 12)), channels=[4, 4, 4], attention=[12])


def test_a_network_runs_at_other_sizes_than_its_types():
    small, large = TensorType((1, 16, 16)), TensorType((1, 20, 12))
    encoder, decoder = ConvEncoder(small), ConvDecoder(TensorType((4, 8, 8)), small)
    encoder_2, decoder_2 = ConvEncoder(large), ConvDecoder(TensorType((4, 10, 6)), large)
    encoder_2.load_state_dict(encoder.state_dict())
    decoder_2.load_state_dict(decoder.state_dict())
    x, z = torch.randn(2, 1, 20, 12), torch.randn(2, 4, 10, 6)
    assert torch.equal(encoder(x), encoder_2(x))
    assert torch.equal(decoder(z), decoder_2(z))


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 1.0), (-3.0, 5.0)])
def test_a_range_is_reached_by_tanh_and_nothing_else_is_bounded(bounds):
    z = TensorType((4, 4, 4))
    free = randomized(ConvDecoder(z, TensorType((1, 8, 8))).double(), 0.2)
    bounded = ConvDecoder(z, TensorType((1, 8, 8), bounds)).double()
    bounded.load_state_dict(free.state_dict())
    values = torch.randn(8, 4, 4, 4, dtype=torch.float64)
    low, high = bounds
    y = free(values)
    assert y.abs().max() > 1
    torch.testing.assert_close(bounded(values), low + (high - low) * torch.sigmoid(2 * y))


def test_the_last_layer_makes_the_output():
    decoder = randomized(ConvDecoder(TensorType((4, 4, 4)), TensorType((2, 7, 8))).double(), 0.2)
    assert decoder.last_layer is not None
    weight = decoder.get_parameter(decoder.last_layer)
    z = torch.randn(2, 4, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        decoder.conv_out.bias.zero_()
        y = decoder(z)
        weight.mul_(-2)
        torch.testing.assert_close(decoder(z), -2 * y)


def test_refusals_name_expected_and_received():
    x, vector = TensorType((1, 16, 16)), TensorType((6,))
    with pytest.raises(ValueError, match="ConvEncoder expects continuous maps .*, got 6 unbounded"):
        ConvEncoder(vector)
    with pytest.raises(ValueError, match="ConvEncoder expects continuous maps .*, got 4×4 codes"):
        ConvEncoder(TensorType((4, 4), classes=9))
    with pytest.raises(ValueError, match="ConvEncoder expects channels of one level or more, got none"):
        ConvEncoder(x, channels=[])
    with pytest.raises(ValueError, match=r"ConvDecoder with 2 levels expects z of size \(8, 8\) .* got \(4, 4\)"):
        ConvDecoder(TensorType((4, 4, 4)), x)
    with pytest.raises(ValueError, match="ConvDecoder expects continuous maps .*, got 6 unbounded"):
        ConvDecoder(vector, x)
    sizes = r"ConvEncoder expects levels at two or more of the resolutions \[16, 8, 4\], including the last, got"
    for levels in ([], [4], [16, 8], [4, 4], [8, 5], [8, 4, 2]):
        with pytest.raises(ValueError, match=rf"{sizes} \[{', '.join(map(str, levels))}\]"):
            ConvEncoder(x, channels=[4, 4, 4], levels=levels)
    sizes = r"ConvDecoder expects each finer map at a later one of the sizes \[\(4, 4\), \(8, 8\), \(16, 16\)\]"
    for shapes in ([4, 7], [4, 8, 8], [4, 16, 8], [4, 4]):
        hierarchy = tuple(TensorType((3, size, size)) for size in shapes)
        with pytest.raises(ValueError, match=rf"{sizes}, got 3×{shapes[-1]}×{shapes[-1]}"):
            ConvDecoder(hierarchy, x, channels=[4, 4, 4])
    with pytest.raises(ValueError, match=r"ConvDecoder with 2 levels expects z of size \(8, 8\) .* got \(4, 4\)"):
        ConvDecoder((TensorType((4, 4, 4)), TensorType((4, 8, 8))), x)
