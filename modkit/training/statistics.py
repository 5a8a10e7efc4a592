"""The running statistics of averaged weights: those that batch normalization would use with them.

In training, batch normalization keeps a running mean and variance of what the raw weights' last batches gave it. The
averages of the weights give other activations, whose statistics are measured, see `modkit.training.norms`. Each pass
computes the losses of a player on a microbatch and counts for the modules that this player owns. Batches and draws are
functions of the seed, the stage and the step, so statistics measured again are the same to the bit, and the training
goes on as if they had never been measured.

References:
    Averaging Weights Leads to Wider Optima and Better Generalization (Izmailov et al., 2018), section 3.2,
    https://arxiv.org/abs/1803.05407
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from modkit.kinds import Engine
from modkit.models.step import StepContext
from modkit.nn.buffer_snapshot import BufferSnapshot
from modkit.precision import use_precision
from modkit.rng import Rng
from modkit.specs.settings import Settings
from modkit.training.norms import find_norms, measure_norms
from modkit.training.players import Participant
from modkit.training.reader import Reader

__all__ = ["PASSES", "Statistics"]

PASSES = 32
"""Number of microbatches that statistics are measured on."""


class Statistics:
    """The running statistics of a stage's players; nothing is computed if their modules keep none.

    Args:
        model: The model.
        players: The players of the stage.
        stage: Index of the stage.
        settings: The training settings.
        reader: Reads the training data.
        engine: The engine that training runs on.
    """

    def __init__(
        self,
        model: nn.Module,
        players: Sequence[Participant],
        stage: int,
        settings: Settings,
        reader: Reader,
        engine: Engine,
    ) -> None:
        self._players, self._stage, self._settings = players, stage, settings
        self._reader, self._engine = reader, engine
        self._norms = {player.name: find_norms(player.modules) for player in players}
        kept = {id(buffer) for norms in self._norms.values() for norm in norms for buffer in norm.buffers()}
        self.buffers = {name: buffer for name, buffer in model.named_buffers() if id(buffer) in kept}

    def measure(self, step: int) -> None:
        """Measures the statistics with the weights that the model has now; all other buffers stay as they are.

        Modules that no pass of their owner reaches keep their statistics.

        Args:
            step: Index of the step in its stage at which losses are computed.
        """
        norms = [norm for own in self._norms.values() for norm in own]
        with BufferSnapshot(module for player in self._players for module in player.modules).keep():
            with measure_norms(norms, self._engine.reduce):
                self._play(step)
            measured = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(recurse=False)]
        for buffer, value in measured:
            buffer.copy_(value)

    def _play(self, step: int) -> None:
        """Computes the losses of the players whose modules keep statistics."""
        settings, engine, key = self._settings, self._engine, ("statistics", self._stage, step)
        with torch.enable_grad(), engine.join_weights():  # regularizers need gradients
            for number, batch in enumerate(self._reader.read_microbatches(*key, num=PASSES)):
                for player in self._players:
                    if not self._norms[player.name]:
                        continue
                    rng = Rng(settings.seed, *key, number, player.name).rows(engine.rank * len(batch))
                    with player.hold_others(), rng.seed_torch(), use_precision(engine.device, settings.precision):
                        player.model.losses(player.name, batch, StepContext(rng, step))
