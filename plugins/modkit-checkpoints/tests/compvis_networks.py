"""Latent diffusion's first stage and U-Net, written out over the authors' keys, and taming-transformers' networks."""

import math

import torch
from torch.nn import functional as F

from .drawn import Drawn, attend, double


class Theirs(Drawn):
    """Their networks, evaluated over a state dict that is drawn."""

    dtype, spread = torch.float32, 25

    def whiten(self, x, tiny):
        return F.group_norm(x, 32, eps=tiny)

    # the first stage

    def residual(self, x, name, out):
        h = self.conv(F.silu(self.norm(x, f"{name}.norm1", 1e-6)), f"{name}.conv1", out)
        h = self.conv(F.silu(self.norm(h, f"{name}.norm2", 1e-6)), f"{name}.conv2", out)
        return h + (x if x.shape[1] == out else self.conv(x, f"{name}.nin_shortcut", out, 1))

    def attend(self, x, name):
        h, wide = self.norm(x, f"{name}.norm", 1e-6), x.shape[1]
        y = attend(*(self.conv(h, f"{name}.{one}", wide, 1).flatten(2).mT for one in "qkv"))
        return x + self.conv(y.mT.reshape(x.shape), f"{name}.proj_out", wide, 1)

    def middle(self, h, side, attn):
        h = self.residual(h, f"{side}.mid.block_1", h.shape[1])
        h = self.attend(h, f"{side}.mid.attn_1") if attn else h
        return self.residual(h, f"{side}.mid.block_2", h.shape[1])

    def encode(self, x, embed, net, factor):
        attn, size = net.get("attn_type") != "none", net["resolution"]
        h = self.conv(x, "encoder.conv_in", net["ch"])
        for level, multiple in enumerate(net["ch_mult"]):
            for block in range(net["num_res_blocks"]):
                h = self.residual(h, f"encoder.down.{level}.block.{block}", net["ch"] * multiple)
                if attn and size >> level in net["attn_resolutions"]:
                    h = self.attend(h, f"encoder.down.{level}.attn.{block}")
            if level + 1 < len(net["ch_mult"]):
                if net.get("resamp_with_conv", True):
                    h = self.conv(F.pad(h, (0, 1, 0, 1)), f"encoder.down.{level}.downsample.conv", h.shape[1], 3, 2, 0)
                else:
                    h = F.avg_pool2d(h, 2)
        h = F.silu(self.norm(self.middle(h, "encoder", attn), "encoder.norm_out", 1e-6))
        return self.conv(self.conv(h, "encoder.conv_out", factor * net["z_channels"]), "quant_conv", factor * embed, 1)

    def decode(self, z, net):
        attn, size = net.get("attn_type") != "none", net["resolution"]
        h = self.conv(z, "post_quant_conv", net["z_channels"], 1)
        h = self.middle(self.conv(h, "decoder.conv_in", net["ch"] * net["ch_mult"][-1]), "decoder", attn)
        for level, multiple in reversed(list(enumerate(net["ch_mult"]))):
            for block in range(net["num_res_blocks"] + 1):
                h = self.residual(h, f"decoder.up.{level}.block.{block}", net["ch"] * multiple)
                if attn and size >> level in net["attn_resolutions"]:
                    h = self.attend(h, f"decoder.up.{level}.attn.{block}")
            if level:
                h, name = double(h), f"decoder.up.{level}.upsample.conv"
                h = self.conv(h, name, h.shape[1]) if net.get("resamp_with_conv", True) else h
        return self.conv(F.silu(self.norm(h, "decoder.norm_out", 1e-6)), "decoder.conv_out", net["out_ch"])

    def nearest(self, z, num):
        """The nearest codes `b h w`, and their vectors in their places."""
        codes = self("quantize.embedding.weight", num, z.shape[1])
        indices = torch.cdist(z.movedim(1, -1).flatten(0, 2), codes).argmin(1).view(len(z), *z.shape[2:])
        return indices, codes[indices].movedim(-1, 1)

    # taming's critic and transformer

    def critic(self, x, width):
        h = F.leaky_relu(self.conv(x, "main.0", width, 4, 2, 1), 0.2)
        h = self.conv(h, "main.2", 2 * width, 4, 1, 1, bias=False)
        mean, var = self("main.3.running_mean", 2 * width), self("main.3.running_var", 2 * width).abs_()
        h = F.batch_norm(h, mean, var, self("main.3.weight", 2 * width), self("main.3.bias", 2 * width))
        return self.conv(F.leaky_relu(h, 0.2), "main.5", 1, 4, 1, 1)

    def gpt(self, tokens, gpt):
        wide, size = gpt["n_embd"], gpt["block_size"]
        x = self("tok_emb.weight", gpt["vocab_size"], wide)[tokens]
        x = x + self("pos_emb", 1, size, wide)[:, : tokens.shape[1]]
        for at in (f"blocks.{layer}" for layer in range(gpt["n_layer"])):
            self(f"{at}.attn.mask", 1, 1, size, size)
            h = self.layer_norm(x, f"{at}.ln1")
            parts = (self.linear(h, f"{at}.attn.{name}", wide) for name in ("query", "key", "value"))
            x = x + self.linear(attend(*parts, gpt["n_head"], mask=True), f"{at}.attn.proj", wide)
            h = F.gelu(self.linear(self.layer_norm(x, f"{at}.ln2"), f"{at}.mlp.0", 4 * wide))
            x = x + self.linear(h, f"{at}.mlp.2", wide)
        return self.linear(self.layer_norm(x, "ln_f"), "head", gpt["vocab_size"], bias=False)

    # the U-Net

    def block(self, x, name, out, emb, film=False, resample=lambda h: h):
        h = self.conv(resample(F.silu(self.norm(x, f"{name}.in_layers.0"))), f"{name}.in_layers.2", out)
        shift = self.linear(F.silu(emb), f"{name}.emb_layers.1", out * (2 if film else 1))[..., None, None]
        if film:
            scale, shift = shift.chunk(2, 1)
            h = self.norm(h, f"{name}.out_layers.0") * (1 + scale) + shift
        else:
            h = self.norm(h + shift, f"{name}.out_layers.0")
        x = resample(x)
        h = self.conv(F.silu(h), f"{name}.out_layers.3", out)
        return h + (x if x.shape[1] == out else self.conv(x, f"{name}.skip_connection", out, 1))

    def self_attention(self, x, name, heads, newer):
        wide, h = x.shape[1], self.norm(x, f"{name}.norm").flatten(2).mT
        qkv = h @ self(f"{name}.qkv.weight", 3 * wide, wide, 1)[..., 0].T + self(f"{name}.qkv.bias", 3 * wide)
        if newer:
            q, k, v = qkv.chunk(3, -1)
        else:
            q, k, v = (one.flatten(2) for one in qkv.unflatten(-1, (heads, -1)).chunk(3, -1))
        y = attend(q, k, v, heads)
        y = y @ self(f"{name}.proj_out.weight", wide, wide, 1)[..., 0].T + self(f"{name}.proj_out.bias", wide)
        return x + y.mT.reshape(x.shape)

    def transformer(self, x, name, heads, depth, context, linear):
        wide, h = x.shape[1], self.norm(x, f"{name}.norm", 1e-6)

        def project(h, name):
            if linear:
                return self.linear(h.flatten(2).mT, name, wide).mT.reshape(x.shape)
            return self.conv(h, name, wide, 1)

        h = project(h, f"{name}.proj_in").flatten(2).mT
        for layer in (f"{name}.transformer_blocks.{index}" for index in range(depth)):
            for number, tokens in ((1, None), (2, context)):
                q = self.layer_norm(h, f"{layer}.norm{number}")
                tokens, at = q if tokens is None else tokens, f"{layer}.attn{number}"
                parts = [
                    self.linear(one, f"{at}.to_{key}", wide, bias=False)
                    for key, one in (("q", q), ("k", tokens), ("v", tokens))
                ]
                h = h + self.linear(attend(*parts, heads), f"{at}.to_out.0", wide)
            a, gate = self.linear(self.layer_norm(h, f"{layer}.norm3"), f"{layer}.ff.net.0.proj", 8 * wide).chunk(2, -1)
            h = h + self.linear(a * F.gelu(gate), f"{layer}.ff.net.2", wide)
        return x + project(h.mT.reshape(x.shape), f"{name}.proj_out")

    def unet(self, x, t, net, context=None, labels=None):
        base, film, blocks = net["model_channels"], net.get("use_scale_shift_norm", False), net["num_res_blocks"]
        residual, learned = net.get("resblock_updown", False), net.get("conv_resample", True)
        angles = t.float()[:, None] * torch.exp(-math.log(10000) * torch.arange(base // 2) / (base // 2))
        emb = self.linear(torch.cat([angles.cos(), angles.sin()], -1), "time_embed.0", 4 * base)
        emb = self.linear(F.silu(emb), "time_embed.2", 4 * base)
        if labels is not None:
            emb = emb + self("label_emb.weight", net["num_classes"], 4 * base)[labels]

        def attend_at(h, name):
            heads = h.shape[1] // net["num_head_channels"] if "num_head_channels" in net else net["num_heads"]
            if context is None:
                return self.self_attention(h, name, heads, net.get("use_new_attention_order", False))
            depth, linear = net.get("transformer_depth", 1), net.get("use_linear_in_transformer")
            return self.transformer(h, name, heads, depth, context, linear)

        def unit(h, name, out, level):
            h = self.block(h, f"{name}.0", out, emb, film)
            return attend_at(h, f"{name}.1") if 1 << level in net["attention_resolutions"] else h

        h = self.conv(x, "input_blocks.0.0", base)
        skips, place = [h], 1
        for level, multiple in enumerate(net["channel_mult"]):
            for _ in range(blocks):
                h = unit(h, f"input_blocks.{place}", base * multiple, level)
                skips.append(h)
                place += 1
            if level + 1 < len(net["channel_mult"]):
                name = f"input_blocks.{place}.0"
                if residual:
                    h = self.block(h, name, h.shape[1], emb, film, lambda h: F.avg_pool2d(h, 2))
                else:
                    h = self.conv(h, f"{name}.op", h.shape[1], 3, 2) if learned else F.avg_pool2d(h, 2)
                skips.append(h)
                place += 1
        h = self.block(h, "middle_block.0", h.shape[1], emb, film)
        h = self.block(attend_at(h, "middle_block.1"), "middle_block.2", h.shape[1], emb, film)
        place = 0
        for level, multiple in reversed(list(enumerate(net["channel_mult"]))):
            for index in range(blocks + 1):
                h = unit(torch.cat([h, skips.pop()], 1), f"output_blocks.{place}", base * multiple, level)
                if level and index == blocks:
                    name = f"output_blocks.{place}.{1 + (1 << level in net['attention_resolutions'])}"
                    if residual:
                        h = self.block(h, name, h.shape[1], emb, film, double)
                    else:
                        h = self.conv(double(h), f"{name}.conv", h.shape[1]) if learned else double(h)
                place += 1
        return self.conv(F.silu(self.norm(h, "out.0")), "out.2", net["out_channels"])
