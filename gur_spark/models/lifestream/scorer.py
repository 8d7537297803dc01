"""A trained sequence encoder, ready to embed rows of sequences."""

# B = users, T = steps, N = events, C = categories, D = numbers, H = state, L = width of an embedding

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from gur_spark.arrays import Floats, Ints, to_lists
from gur_spark.batches.padded import Sequences
from gur_spark.batches.sequences import Events, SequenceLayout, to_events
from gur_spark.models.kind import Artefact
from gur_spark.models.lifestream.encoder import SequenceEncoder
from gur_spark.models.lifestream.recurrence import Recurrence, recurrence_of
from gur_spark.models.lifestream.settings import ColesModel
from gur_spark.models.weights import read_weights, set_weights

BLOCK = 128
"""Users of a block. Exactly so many are embedded at a time."""

LONG, LONG_BLOCK = 256, 32
"""Users with more than ``LONG`` events are embedded in blocks of ``LONG_BLOCK``, because their lengths differ more."""

STEPS = 32
"""Events of each user that are encoded at a time. It bounds the memory of a block of long users."""


@dataclass(frozen=True, kw_only=True)
class SequenceScorer:
    """Scorer that embeds users in float32, in blocks of similar length."""

    module: SequenceEncoder
    """The module in eval mode."""
    layout: SequenceLayout
    recurrence: Recurrence

    @property
    def columns(self) -> Sequence[str]:
        return self.layout.columns

    def score(self, rows: pa.RecordBatch) -> Mapping[str, pa.RecordBatch]:
        """Score rows: ``embeddings`` has one row per row of the snapshot; ``events`` counts the events of the row."""
        events = to_events(rows, self.layout)
        columns = [rows["user_id"], to_lists(self.vectors(events)), pa.array(events.lengths_B)]
        return {"embeddings": pa.RecordBatch.from_arrays(columns, names=["user_id", "embedding", "events"])}

    @torch.inference_mode()
    def vectors(self, events: Events) -> Floats:
        """Embed the users, float32 (B, L). No bit of an embedding depends on the other users.

        A matrix product rounds by its shape. So the block of a user has a size that only the user's own length decides,
        and the last block is filled up: each step of the network is a product of one shape, and a row's result depends
        on that row alone. Float64 would hide the shape as well, but takes twice as long. The result of another machine
        differs in the seventh digit.
        """
        order = np.argsort(events.lengths_B, kind="stable")
        longer = int(np.searchsorted(events.lengths_B[order], LONG, side="right"))
        state_BH = np.empty((len(events), self.module.state_dim), dtype=np.float32)
        for some, size in ((order[:longer], BLOCK), (order[longer:], LONG_BLOCK)):
            for start in range(0, len(some), size):
                users = some[start : start + size]
                block = np.pad(users, (0, size - len(users)), mode="edge")
                state_BH[users] = self._states(events, block)[: len(users)].numpy()
        return np.hstack([state_BH, self.module.beside(Sequences.of(events)).numpy()])

    def _states(self, events: Events, users: Ints) -> Tensor:
        """Compute the states of one block, (B, H). The network takes ``STEPS`` events at a time and keeps its state."""
        first_B, lengths_B = events.offsets[users], events.lengths_B[users]
        longest = int(lengths_B.max())
        state_BH = torch.empty(len(users), self.module.state_dim)
        carry = None
        for begin in range(0, longest, STEPS):
            step_T = np.arange(begin, min(begin + STEPS, longest))
            # After a user's end the last event is repeated; the state is read before.
            at_N = (first_B + np.minimum(step_T[:, None], lengths_B - 1)).ravel()
            ids_CN, numbers_ND = np.take(events.ids_CN, at_N, axis=1), np.take(events.numbers_ND, at_N, axis=0)
            states_TBH, carry = self.recurrence.steps(
                torch.from_numpy(ids_CN), torch.from_numpy(numbers_ND), len(users), carry
            )
            ends_B = np.flatnonzero((lengths_B > begin) & (lengths_B <= begin + STEPS))
            state_BH[ends_B] = states_TBH[lengths_B[ends_B] - 1 - begin, ends_B]
        return state_BH


def load_scorer(artefact: Artefact) -> SequenceScorer:
    """Make the scorer of an artefact.

    Raises:
        ModelError: the weights cannot be read, or are not those of the configuration.
    """
    layout = SequenceLayout.of(artefact.manifest, artefact.vocabulary.sizes)
    # Loading a version must not move torch's generator, from which a training beside it draws.
    with torch.random.fork_rng(devices=[]):
        module = SequenceEncoder(layout, ColesModel.of(artefact.model))
    set_weights(module, read_weights(artefact), artefact.version)
    return scorer_of(module, layout)


def untrained_scorer(artefact: Artefact, seed: int) -> SequenceScorer:
    """Make a scorer of the same architecture and standardised inputs, with the weights that a training of this seed
    begins with."""
    trained, layout = load_scorer(artefact), SequenceLayout.of(artefact.manifest, artefact.vocabulary.sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = SequenceEncoder(layout, ColesModel.of(artefact.model))
    module.load_state_dict(dict(trained.module.named_buffers()), strict=False)
    return scorer_of(module, layout)


def scorer_of(module: SequenceEncoder, layout: SequenceLayout) -> SequenceScorer:
    """Make a scorer with the module's weights."""
    frozen = module.eval().requires_grad_(False)
    return SequenceScorer(module=frozen, layout=layout, recurrence=recurrence_of(frozen))
