"""A probe of how much an encoder knows of users' recency, without labels.

The sequences themselves give the task: predict whether a user has an event in the last ``DAYS`` days from an embedding
of the events before them. Nothing at or after a snapshot's date takes part.
"""

# N = users, L = width of an embedding

import numpy as np
import pyarrow as pa

from gur_spark.arrays import Array, Floats, Mask
from gur_spark.batches.sequence_streams import READ_ROWS, Side
from gur_spark.batches.sequences import DAY, to_events
from gur_spark.batches.streams import read_groups
from gur_spark.models.lifestream.scorer import SequenceScorer
from gur_spark.statistics.measures import auc

DAYS = 28
"""Days before the snapshot's date that stand for the future."""

USERS = 10_000
"""Users of each side, at most."""

PENALTY = 0.01
"""Penalty of the ridge regression, per user and standardised column."""


def probe_recency(scorer: SequenceScorer, sides: tuple[Side, Side]) -> dict[str, float]:
    """Measure the AUC of a linear model that is fitted on training users and tested on validation users, as metrics.

    ``probe_auc`` uses the whole embedding and ``probe_state_auc`` the network's state alone. If the first is greater,
    the numbers beside the state know something that the state has lost. There is no metric where a side has users of
    one class only.
    """
    (x_NL, active_N), (test_NL, test_active_N) = (_asked(scorer, side) for side in sides)
    if not all(0 < active.sum() < len(active) for active in (active_N, test_active_N)):
        return {}
    found = {}
    for name, width in (("probe_auc", scorer.module.latent_dim), ("probe_state_auc", scorer.module.state_dim)):
        score_N = linear_scores(x_NL[:, :width], active_N, test_NL[:, :width])
        found[name] = auc(score_N[~test_active_N], score_N[test_active_N])
    return found


def earlier(rows: pa.RecordBatch, days: int) -> tuple[pa.RecordBatch, Mask]:
    """Cut rows of sequences back to a date so many days before, without the users that had no events then.

    Returns the rows, and for each of them whether the user has an event in the days that were cut.
    """
    as_of_B = rows.column("as_of").to_numpy() - days * DAY
    times = rows.column("event_time")
    lengths_B = times.value_lengths().to_numpy().astype(np.int64)
    before_N = times.flatten().to_numpy() < np.repeat(as_of_B, lengths_B)
    first_B = np.concatenate(([0], np.cumsum(lengths_B)))
    kept_B = np.diff(np.concatenate(([0], np.cumsum(before_N)))[first_B])
    there = np.flatnonzero(kept_B)
    offsets = np.concatenate(([0], np.cumsum(kept_B[there]))).astype(np.int32)
    columns = {name: rows.column(name) for name in rows.schema.names}
    for name, column in columns.items():
        if pa.types.is_list(column.type):
            columns[name] = pa.ListArray.from_arrays(offsets, column.flatten().filter(pa.array(before_N)))
        else:
            columns[name] = (pa.array(as_of_B) if name == "as_of" else column).take(pa.array(there))
    return pa.RecordBatch.from_pydict(columns), (lengths_B > kept_B)[there]


def linear_scores(x_NL: Floats, active_N: Mask, test_NL: Floats) -> Array:
    """Score the test users by a ridge regression of 0 and 1, which ranks as linear discriminant analysis does."""
    mean_L, std_L = x_NL.mean(axis=0, dtype=np.float64), x_NL.std(axis=0, dtype=np.float64)
    scale_L = np.where(std_L > 1e-9, std_L, 1.0)
    z_NL = (x_NL - mean_L) / scale_L
    penalty_LL = PENALTY * len(z_NL) * np.eye(z_NL.shape[1])
    weights_L = np.linalg.solve(z_NL.T @ z_NL + penalty_LL, z_NL.T @ (active_N - active_N.mean()))
    scores_N: Array = (test_NL - mean_L) / scale_L @ weights_L
    return scores_N


def _asked(scorer: SequenceScorer, side: Side) -> tuple[Floats, Mask]:
    """Embed the first ``USERS`` users ``DAYS`` days before the date, and mark those who came back."""
    vectors, answers, users = [], [], 0
    filled = [group for group, rows in zip(side.groups, side.rows, strict=True) if rows]
    for rows in read_groups(filled, scorer.columns, READ_ROWS, side.keep):
        before, active = earlier(rows, DAYS)
        if before.num_rows:
            vectors.append(scorer.vectors(to_events(before, scorer.layout)))
            answers.append(active)
            users += before.num_rows
        if users >= USERS:
            break
    if not vectors:
        return np.empty((0, scorer.module.latent_dim), dtype=np.float32), np.empty(0, dtype=np.bool_)
    return np.concatenate(vectors), np.concatenate(answers)
