"""A trained sequence encoder, ready to embed rows of sequences."""

# B = users of a block, T = steps, C = categories, D = numbers, L = width of an embedding

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from gur_spark.arrays import Ints, to_lists
from gur_spark.batches.padded import Sequences
from gur_spark.batches.sequences import Events, SequenceLayout, to_events
from gur_spark.models.kind import Artefact
from gur_spark.models.lifestream.encoder import SequenceEncoder
from gur_spark.models.lifestream.settings import ColesModel
from gur_spark.models.weights import load_weights

BLOCK = 32
"""Users that are embedded at a time, no more and no fewer."""

STEPS = 256
"""Events of each user that are encoded at a time; bounds the memory that a block takes, however long its users are."""


@dataclass(frozen=True, kw_only=True)
class SequenceScorer:
    """Embeds users in float32, in blocks of similar length."""

    module: SequenceEncoder
    """In eval mode."""
    layout: SequenceLayout

    @property
    def columns(self) -> Sequence[str]:
        return self.layout.columns

    def score(self, rows: pa.RecordBatch) -> Mapping[str, pa.RecordBatch]:
        """``embeddings``: one row per row of the snapshot; ``events`` counts the events of the row."""
        events = to_events(rows, self.layout)
        columns = [rows["user_id"], to_lists(self.vectors(events)), pa.array(events.lengths_B)]
        return {"embeddings": pa.RecordBatch.from_arrays(columns, names=["user_id", "embedding", "events"])}

    @torch.inference_mode()
    def vectors(self, events: Events) -> npt.NDArray[np.float32]:
        """Embeddings of the users, float32 (B, L); not a bit of a user's depends on the other users.

        A matrix product rounds by its shape, so users are embedded in blocks of ``BLOCK``, in the order of length, and
        the last block is filled up: each step of the network is then a product of one shape, in which a row's result
        depends on that row alone. Float64, which would hide the shape as well, takes twice as long. The result of
        another machine differs in the seventh digit.
        """
        order = np.argsort(events.lengths_B, kind="stable")
        state_BH = np.empty((len(events), self.module.state_dim), dtype=np.float32)
        for start in range(0, len(order), BLOCK):
            users = order[start : start + BLOCK]
            block = np.pad(users, (0, BLOCK - len(users)), mode="edge")
            state_BH[users] = self._states(events, block)[: len(users)].numpy()
        return np.hstack([state_BH, self.module.beside(Sequences.of(events)).numpy()])

    def _states(self, events: Events, users: Ints) -> Tensor:
        """States of one block, (B, H): the network goes over ``STEPS`` events at a time and hands its state on."""
        first_B, lengths_B = events.offsets[users], events.lengths_B[users]
        longest = int(lengths_B.max())
        state_BH = torch.empty(len(users), self.module.state_dim)
        carry = None
        for begin in range(0, longest, STEPS):
            steps = min(STEPS, longest - begin)
            # Past a user's end stands the last event again; the state is read before.
            at_N = (first_B[:, None] + np.minimum(begin + np.arange(steps), lengths_B[:, None] - 1)).ravel()
            ids_CN, numbers_ND = torch.from_numpy(events.ids_CN[:, at_N]), torch.from_numpy(events.numbers_ND[at_N])
            batch = Sequences(torch.full((len(users),), steps), ids_CN, numbers_ND)
            states_BTH, carry = self.module.advance(batch, carry)
            ends_B = np.flatnonzero((lengths_B > begin) & (lengths_B <= begin + steps))
            state_BH[ends_B] = states_BTH[ends_B, lengths_B[ends_B] - 1 - begin]
        return state_BH


def load_scorer(artefact: Artefact) -> SequenceScorer:
    """The scorer of an artefact.

    Raises:
        ModelError: the weights cannot be read, or are not those of the configuration.
    """
    layout = SequenceLayout.of(artefact.manifest, artefact.vocabulary.sizes)
    module = SequenceEncoder(layout, ColesModel.of(artefact.model))
    load_weights(module, artefact)
    return scorer_of(module, layout)


def untrained_scorer(artefact: Artefact, seed: int) -> SequenceScorer:
    """The same architecture over the same standardised inputs, with the weights that a training of this seed begins
    with."""
    trained, layout = load_scorer(artefact), SequenceLayout.of(artefact.manifest, artefact.vocabulary.sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = SequenceEncoder(layout, ColesModel.of(artefact.model))
    module.load_state_dict(dict(trained.module.named_buffers()), strict=False)
    return scorer_of(module, layout)


def scorer_of(module: SequenceEncoder, layout: SequenceLayout) -> SequenceScorer:
    """A scorer with the module's weights."""
    return SequenceScorer(module=module.eval().requires_grad_(False), layout=layout)
