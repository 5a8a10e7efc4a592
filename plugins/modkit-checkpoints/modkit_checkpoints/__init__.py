"""The authors' own checkpoints as runs of modkit, and their U-Nets as parts.

Importing this package imports no torch.
"""

from __future__ import annotations

from typing import Any

from modkit import Part, hookimpl

__all__ = ["modkit_commands", "modkit_parts"]


@hookimpl
def modkit_commands(app: Any) -> None:
    """`modkit import`."""
    from modkit_checkpoints.command import import_command

    app.add_command(import_command)


@hookimpl
def modkit_parts() -> list[Part]:
    """The parts of this package."""
    return [
        Part("network", "adm-unet", "modkit_checkpoints.adm_unet:AdmUNet", "ADM's U-Net (Rombach et al., 2022)"),
        Part(
            "schedule",
            "scaled-linear",
            "modkit_checkpoints.compvis_sampling:ScaledLinear",
            "Betas whose roots rise linearly (Rombach et al., 2022)",
        ),
        Part("sampler", "ldm-ddim", "modkit_checkpoints.compvis_sampling:AuthorsDDIM", "DDIM on their grid"),
        Part("conditioner", "class-token", "modkit_checkpoints.conditioners:ClassToken", "A class label as one token"),
        Part("conditioner", "class-id", "modkit_checkpoints.conditioners:ClassId", "A class label as it is"),
        Part("conditioner", "given-tokens", "modkit_checkpoints.conditioners:GivenTokens", "Tokens from the data"),
        Part(
            "network",
            "dhariwal-unet",
            "modkit_checkpoints.dhariwal_unet:DhariwalUNet",
            "ADM's U-Net as EDM has it (Karras et al., 2022)",
        ),
        Part(
            "network",
            "song-unet",
            "modkit_checkpoints.song_unet:SongUNet",
            "DDPM++ and NCSN++ as EDM has them (Karras et al., 2022)",
        ),
    ]
