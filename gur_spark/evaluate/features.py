"""Representations of users that an embedding is compared with, from the same snapshot.

Means, deviations and principal components are fitted on all users of the date, once for all splits and tasks. They use
no answers, and the training of the embedding saw all users, too.
"""

# N = users, D = dense columns, F = empty flags, C = raw columns, L = latent width

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from gur_spark.arrays import Array
from gur_spark.batches.aggregates import AggregateBatch, to_batch
from gur_spark.batches.layout import Layout
from gur_spark.batches.streams import READ_ROWS
from gur_spark.errors import EvaluationError
from gur_spark.evaluate.figures import BOTH, COLES, EMBEDDING, HAND_MADE, PCA, RANDOM, RAW
from gur_spark.evaluate.small_models import Matrix
from gur_spark.extras import report_library
from gur_spark.features.declare.spec import NUMERIC_STATISTICS
from gur_spark.snapshots.files import row_groups
from gur_spark.statistics.moments import Moments

ABOUT = {
    RAW: "every number of the windows standardised, flags of empty ones, shares of categories",
    PCA: "the first components of the raw windows, as many as the embedding has numbers",
    RANDOM: "the model's own encoder with the weights it had before training",
    HAND_MADE: "pytorch-lifestream's AggFeatureSeqEncoder: statistics of the longest window by category, without times",
    COLES: "the kind coles: a recurrent encoder of events trained by contrast, of the embedding's size",
    EMBEDDING: "embeddings of this model version",
    BOTH: "raw windows beside the embedding",
}


@dataclass(frozen=True)
class Windows:
    """Columns of a snapshot for N users, not yet scaled."""

    dense_ND: Array
    """NaN where the column is null."""
    empty_NF: Array
    """1 where a window has no event, or a numeric field has no value in it."""
    shares: list[sparse.csr_array]
    """Per field and window, the share of each id among the user's events, (N, V)."""


def read_windows(snapshot: str, layout: Layout, users: pa.Array) -> Windows:
    """Read the rows of ``users`` from the aggregate snapshot at this path, in the order of ``users``.

    Raises:
        EvaluationError: a user is not in the snapshot.
    """
    batches: list[AggregateBatch] = []
    positions = []
    for group in row_groups(snapshot):
        for rows in group.read(["user_id", *layout.columns], READ_ROWS):
            position = pc.index_in(rows.column("user_id"), users)
            chosen = rows.filter(position.is_valid())
            if chosen.num_rows:
                batches.append(to_batch(chosen, layout))
                positions.append(position.drop_null().to_numpy())
    order = np.argsort(np.concatenate(positions)) if positions else np.empty(0, dtype=np.int64)
    if len(order) != len(users):
        absent = len(users) - len(order)
        raise EvaluationError(f"{absent} of {len(users)} users with an embedding are not in snapshot {snapshot}")
    dense_ND = np.concatenate([batch.dense_BD.numpy() for batch in batches])[order].astype(np.float64)
    counts = [d for d, column in enumerate(layout.dense) if column.statistic in ("events", "count")]
    shares = [
        sparse.vstack([_shares(batch, field, w, size) for batch in batches], format="csr")[order]
        for field, size in layout.sizes.items()
        for w in range(len(layout.windows_of[field]))
    ]
    return Windows(dense_ND, (dense_ND[:, counts] == 0).astype(np.float64), shares)


def represent(
    windows: Windows, embedding_NL: Array, *, seed: int, more: Mapping[str, Array] | None = None
) -> Mapping[str, Matrix]:
    """Make every representation by its name.

    ``more`` holds further ones, one row per user. Numbers are scaled to deviation 1 for the linear models. Principal
    components keep their scale, which orders them, and the numbers of an embedding keep their proportions.
    """
    raw_NC = raw_windows(windows)
    embedding = proportioned(embedding_NL)
    return {
        RAW: raw_NC,
        PCA: principal_components(raw_NC, embedding_NL.shape[1], seed),
        **{
            name: (proportioned if name == RANDOM else standardise)(values_NC)
            for name, values_NC in (more or {}).items()
        },
        EMBEDDING: embedding,
        BOTH: sparse.hstack([raw_NC, sparse.csr_array(embedding)], format="csr"),
    }


def raw_windows(windows: Windows) -> sparse.csr_array:
    """Lay dense columns, empty flags and shares of ids side by side, (N, C).

    Dense columns are on a signed log scale and standardised; a null is 0, the mean. Shares are not standardised one by
    one, because that would give the rarest ids the most weight: all ids of a field and window together get the variance
    of a numeric field's statistics.
    """
    x_ND = windows.dense_ND
    scaled_ND = standardise(np.sign(x_ND) * np.log1p(np.abs(x_ND)))
    variance = len(NUMERIC_STATISTICS)
    shares = [share * (variance / (_total_variance(share) or 1)) ** 0.5 for share in windows.shares]
    return sparse.hstack([sparse.csr_array(scaled_ND), sparse.csr_array(windows.empty_NF), *shares], format="csr")


def standardise(x_NC: Array) -> Array:
    """Scale columns to mean 0 and deviation 1; NaN becomes 0, the mean."""
    moments = Moments(x_NC.shape[1])
    moments.update(x_NC)
    return np.nan_to_num((x_NC - moments.mean_T) / moments.std())


def proportioned(x_NL: Array) -> Array:
    """Scale an embedding as a whole: mean 0, and deviation 1 on average over its numbers; NaN becomes 0.

    Its linear part has been rotated, and a rotation changes nothing for a linear model only if the numbers keep their
    proportions.
    """
    moments = Moments(x_NL.shape[1])
    moments.update(x_NL)
    variance = float((moments.deviation_T / np.maximum(moments.count_T, 1)).mean())
    scaled_NL: Array = np.nan_to_num((x_NL - moments.mean_T) / (variance or 1.0) ** 0.5)
    return scaled_NL


def principal_components(x_NC: sparse.csr_array, width: int, seed: int) -> Array:
    """Compute the first ``width`` principal components; fewer where there are fewer columns or users.

    They keep their scale, so that a penalised model tells the first from the last. Scaled to equal width they predict
    worse.
    """
    components = min(width, min(x_NC.shape) - 1)
    pca = report_library("sklearn.decomposition").PCA(components, svd_solver="arpack", random_state=seed)
    return np.asarray(pca.fit_transform(x_NC))


def _shares(batch: AggregateBatch, field: str, window: int, size: int) -> sparse.csr_array:
    ids, shares, offsets = batch.histograms[field].window(window, len(batch))
    return sparse.csr_array((shares.double().numpy(), ids.numpy(), offsets.numpy()), shape=(len(batch), size))


def _total_variance(x_NC: sparse.csr_array) -> float:
    return float(((x_NC**2).mean(axis=0) - x_NC.mean(axis=0) ** 2).sum())
