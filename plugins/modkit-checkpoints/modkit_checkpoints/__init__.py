"""The authors' own checkpoints as runs of modkit, and their U-Nets as parts.

Importing this package imports no torch.
"""

from __future__ import annotations

from typing import Any

from modkit import Part, hookimpl

__all__ = ["modkit_commands", "modkit_parts"]

_PARTS = [
    ("network", "adm-unet", "adm_unet:AdmUNet", "ADM's U-Net (Rombach et al., 2022)"),
    (
        "schedule",
        "scaled-linear",
        "compvis_sampling:ScaledLinear",
        "Betas whose roots rise linearly (Rombach et al., 2022)",
    ),
    ("sampler", "ldm-ddim", "compvis_sampling:AuthorsDDIM", "DDIM on their grid"),
    ("conditioner", "class-token", "conditioners:ClassToken", "A class label as one token"),
    ("conditioner", "class-id", "conditioners:ClassId", "A class label as it is"),
    ("conditioner", "given-tokens", "conditioners:GivenTokens", "Tokens from the data"),
    ("network", "dhariwal-unet", "dhariwal_unet:DhariwalUNet", "ADM's U-Net as EDM has it (Karras et al., 2022)"),
    ("network", "song-unet", "song_unet:SongUNet", "DDPM++ and NCSN++ as EDM has them (Karras et al., 2022)"),
]


@hookimpl
def modkit_commands(app: Any) -> None:
    """Adds `modkit import`."""
    from modkit_checkpoints.command import import_command

    app.add_command(import_command)


@hookimpl
def modkit_parts() -> list[Part]:
    """Returns the parts of this plug-in; modkit puts `checkpoints/` before their names."""
    return [Part(kind, name, f"{__name__}.{target}", summary) for kind, name, target, summary in _PARTS]
