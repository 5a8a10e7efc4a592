"""EDM's two U-Nets and DDGAN's networks, written out over the authors' keys from the papers' equations, in float64."""

import itertools
import math

import torch
from torch.nn import functional as F

from .drawn import attend


def make_lines(n, taps):
    """The matrix that filters a line and keeps every second value."""
    matrix = torch.zeros(n // 2, n, dtype=torch.float64)
    for i in range(n // 2):
        for j, tap in enumerate(taps):
            if 0 <= (at := 2 * i + j - (len(taps) - 1) // 2) < n:
                matrix[i, at] = tap / sum(taps)
    return matrix


def make_strided(n, taps):
    """The same without zeros beyond the ends."""
    matrix = torch.zeros((n - len(taps)) // 2 + 1, n, dtype=torch.float64)
    for i, row in enumerate(matrix):
        row[2 * i : 2 * i + len(taps)] = torch.tensor(taps, dtype=torch.float64) / sum(taps)
    return matrix


def halve(x, taps):
    return make_lines(x.shape[2], taps) @ x @ make_lines(x.shape[3], taps).T


def double(x, taps):
    return 4 * make_lines(2 * x.shape[2], taps).T @ x @ make_lines(2 * x.shape[3], taps)


RESAMPLE = {"down": halve, "up": double, None: lambda x, taps: x}


def waves(time, features, end):
    half = features // 2
    return time[:, None] * 10000.0 ** (-torch.arange(half, dtype=torch.float64) / (half - end))


# EDM


def edm_block(net, x, e, name, out, c, *, resample=None, attend=False):
    song = c["model_type"] == "SongUNet"
    tiny, scale, taps = (1e-6, math.sqrt(0.5), c["resample_filter"]) if song else (1e-5, 1.0, [1, 1])
    h = net.conv(RESAMPLE[resample](F.silu(net.norm(x, f"{name}.norm0", tiny)), taps), f"{name}.conv0", out)
    if song:
        h = net.norm(h + net.linear(e, f"{name}.affine", out)[..., None, None], f"{name}.norm1", tiny)
    else:
        gain, offset = net.linear(e, f"{name}.affine", 2 * out)[..., None, None].chunk(2, dim=1)
        h = net.norm(h, f"{name}.norm1", tiny) * (1 + gain) + offset
    h = net.conv(F.silu(h), f"{name}.conv1", out)
    x = RESAMPLE[resample](x, taps)
    if x.shape[1] != out or (song and resample):
        x = net.conv(x, f"{name}.skip", out, 1)
    x = scale * (x + h)
    if not attend:
        return x
    heads = 1 if song else out // 64
    qkv = net.conv(net.norm(x, f"{name}.norm2", tiny), f"{name}.qkv", 3 * out, 1)
    q, k, v = qkv.reshape(len(x), heads, out // heads, 3, -1).unbind(3)
    y = v @ (q.mT @ k / math.sqrt(out // heads)).softmax(-1).mT
    return scale * (x + net.conv(y.reshape(x.shape), f"{name}.proj", out, 1))


def edm_unet(net, x, time, onehot, augment, c, output):
    """SongUNet or DhariwalUNet: they share the pyramid."""
    song, base, last = c["model_type"] == "SongUNet", c["model_channels"], len(c["channel_mult"]) - 1
    width, features = base * c["channel_mult_emb"], base * c.get("channel_mult_noise", 1)
    if c.get("embedding_type") == "fourier":
        angles = time[:, None] * 2 * math.pi * net("map_noise.freqs", features // 2)
    else:
        angles = waves(time, features, int(song))
    e = torch.cat([angles.sin(), angles.cos()] if song else [angles.cos(), angles.sin()], 1)
    if song and onehot is not None:
        e = e + net.linear(onehot * math.sqrt(onehot.shape[1]), "map_label", features)
    if augment is not None:
        e = e + net.linear(augment, "map_augment", features, bias=False)
    e = net.linear(F.silu(net.linear(e, "map_layer0", width)), "map_layer1", width)
    e = F.silu(e if song or onehot is None else e + net.linear(onehot, "map_label", width, bias=False))

    side, beside, taps = x.shape[-1], x, c.get("resample_filter")
    skips = [net.conv(x, f"enc.{side}x{side}_conv", base if song else base * c["channel_mult"][0])]
    for level, multiple in enumerate(c["channel_mult"]):
        at, attend = f"enc.{side >> level}x{side >> level}", (side >> level) in c["attn_resolutions"]
        if level:
            h = edm_block(net, skips[-1], e, f"{at}_down", skips[-1].shape[1], c, resample="down")
            if c.get("encoder_type") == "skip":
                beside = halve(beside, taps)
                h = h + net.conv(beside, f"{at}_aux_skip", h.shape[1], 1)
            elif c.get("encoder_type") == "residual":
                margin = 1 + (len(taps) - 1) // 2  # nothing is cut between the convolution and the filter
                beside = net.conv(beside, f"{at}_aux_residual", h.shape[1], padding=margin, bias=False)
                line = make_strided(beside.shape[2], taps)
                beside = line @ beside @ line.T + net(f"{at}_aux_residual.bias", h.shape[1])[:, None, None]
                h = beside = (h + beside) / math.sqrt(2)
            skips.append(h)
        for block in range(c["num_blocks"]):
            skips.append(edm_block(net, skips[-1], e, f"{at}_block{block}", base * multiple, c, attend=attend))
    h, at = skips[-1], f"dec.{side >> last}x{side >> last}"
    h = edm_block(net, h, e, f"{at}_in0", h.shape[1], c, attend=True)
    h, y = edm_block(net, h, e, f"{at}_in1", h.shape[1], c), None
    for level in reversed(range(last + 1)):
        at, attends = f"dec.{side >> level}x{side >> level}", (side >> level) in c["attn_resolutions"]
        h = edm_block(net, h, e, f"{at}_up", h.shape[1], c, resample="up") if level < last else h
        for block in range(c["num_blocks"] + 1):
            attend = attends and (block == c["num_blocks"] or not song)
            h, out = torch.cat([h, skips.pop()], 1), base * c["channel_mult"][level]
            h = edm_block(net, h, e, f"{at}_block{block}", out, c, attend=attend)
        if song and (c["decoder_type"] == "skip" or level == 0):
            share = net.conv(F.silu(net.norm(h, f"{at}_aux_norm", 1e-6)), f"{at}_aux_conv", output)
            y = share if y is None else double(y, taps) + share
    return y if song else net.conv(F.silu(net.norm(h, "out_norm", 1e-5)), "out_conv", output)


# DDGAN


def ddgan_block(net, x, e, w, name, out, taps, resample=None):
    def modulate(h, which):
        style = net.linear(w, f"{name}.GroupNorm_{which}.style", 2 * h.shape[1])[..., None, None]
        gain, offset = style.chunk(2, dim=1)
        return F.silu(gain * net.whiten(h, 1e-6) + offset)

    h = net.conv(RESAMPLE[resample](modulate(x, 0), taps), f"{name}.Conv_0", out)
    h = h + net.linear(F.silu(e), f"{name}.Dense_0", out)[..., None, None]
    h = net.conv(modulate(h, 1), f"{name}.Conv_1", out)
    x = RESAMPLE[resample](x, taps)
    x = net.conv(x, f"{name}.Conv_2", out, 1) if resample or x.shape[1] != out else x
    return (x + h) / math.sqrt(2)


def ddgan_attention(net, x, name):
    wide = x.shape[1]
    h = net.norm(x, f"{name}.GroupNorm_0", 1e-6).flatten(2).mT

    def mix(h, which):
        return h @ net(f"{name}.NIN_{which}.W", wide, wide) + net(f"{name}.NIN_{which}.b", wide)

    y = attend(*(mix(h, which) for which in range(3)))
    return (x + mix(y, 3).mT.reshape(x.shape)) / math.sqrt(2)


def generator(net, x, time, z, c):
    """The paths up and down that have convolutions of their own are left to the core's tests."""
    base, taps, number = c["num_channels_dae"], [1, 3, 3, 1] if c["fir"] else [1, 1], itertools.count()

    def place():  # modules are numbered in the order in which they run
        return f"all_modules.{next(number)}"

    w = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for layer in range(c["n_mlp"] + 1):
        w = F.silu(net.linear(w, f"z_transform.{2 * layer + 1}", c["z_emb_dim"]))
    angles = waves(time, base, 1)
    e = net.linear(torch.cat([angles.sin(), angles.cos()], 1), place(), 4 * base)
    e = net.linear(F.silu(e), place(), 4 * base)
    skips, beside, last = [net.conv(x, place(), base)], x, len(c["ch_mult"]) - 1
    for level, multiple in enumerate(c["ch_mult"]):
        for _ in range(c["num_res_blocks"]):
            h = ddgan_block(net, skips[-1], e, w, place(), base * multiple, taps)
            skips.append(ddgan_attention(net, h, place()) if h.shape[-1] in c["attn_resolutions"] else h)
        if level < last:
            h = ddgan_block(net, skips[-1], e, w, place(), skips[-1].shape[1], taps, "down")
            if c["progressive_input"] == "input_skip":
                beside = halve(beside, taps)
                h = h + net.conv(beside, f"{place()}.Conv_0", h.shape[1], 1)
            skips.append(h)
    h = ddgan_block(net, skips[-1], e, w, place(), skips[-1].shape[1], taps)
    h = ddgan_attention(net, h, place())
    h, y = ddgan_block(net, h, e, w, place(), h.shape[1], taps), None
    for level in reversed(range(last + 1)):
        for _ in range(c["num_res_blocks"] + 1):
            h = ddgan_block(net, torch.cat([h, skips.pop()], 1), e, w, place(), base * c["ch_mult"][level], taps)
        h = ddgan_attention(net, h, place()) if h.shape[-1] in c["attn_resolutions"] else h
        if c["progressive"] == "output_skip":
            share = net.conv(F.silu(net.norm(h, place(), 1e-6)), place(), x.shape[1])
            y = share if y is None else double(y, taps) + share
        h = ddgan_block(net, h, e, w, place(), h.shape[1], taps, "up") if level else h
    if y is None:
        y = net.conv(F.silu(net.norm(h, place(), 1e-6)), place(), x.shape[1])
    return y if c["not_use_tanh"] else torch.tanh(y)


def critic(net, x, time, x_t, c, large):
    def act(h):
        return F.leaky_relu(h, 0.2)

    wide, taps = c["t_emb_dim"], [1, 3, 3, 1]
    angles = waves(time, wide, 1)
    e = net.linear(torch.cat([angles.sin(), angles.cos()], 1), "t_embed.main.0", wide)
    e = act(net.linear(act(e), "t_embed.main.2", wide))
    h = net.conv(torch.cat([x, x_t], 1), "start_conv", 2 * c["ngf"], 1)
    for index, multiple in enumerate([4, 8, 8, 8, 8, 8] if large else [2, 4, 8, 8]):
        name, out, down = f"conv{index + 1}", multiple * c["ngf"], "down" if large or index else None
        y = net.conv(act(h), f"{name}.conv1.0", out) + net.linear(e, f"{name}.dense_t1", out)[..., None, None]
        y = net.conv(RESAMPLE[down](act(y), taps), f"{name}.conv2.0", out)
        h = (net.conv(RESAMPLE[down](h, taps), f"{name}.skip.0", out, 1, bias=False) + y) / math.sqrt(2)
    groups = h.reshape(min(4, len(h)), -1, *h.shape[1:])
    std = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    std = std.repeat(len(groups))[:, None, None, None].expand(-1, 1, *h.shape[2:])
    h = act(net.conv(torch.cat([h, std], 1), "final_conv", h.shape[1])).sum((2, 3))
    return net.linear(h, "end_linear", 1)[:, 0]
