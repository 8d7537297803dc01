"""Embeddings of chosen users of a snapshot, by any kind's scorer."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gur_spark.arrays import Array, matrix
from gur_spark.models.kind import Scorer
from gur_spark.snapshots.files import row_groups

READ_ROWS = 8_192
"""Rows that are scored at a time."""


def encode_users(snapshot: str, scorer: Scorer, users: pa.Array) -> Array:
    """Embed the users of a snapshot, (N, L), in their order; NaN for a user without a row.

    Args:
        snapshot: folder of a snapshot of the form that the scorer reads.
    """
    found, vectors = [], []
    for group in row_groups(snapshot):
        for rows in group.read(scorer.columns, READ_ROWS):
            chosen = rows.filter(pc.is_in(rows.column("user_id"), users))
            if chosen.num_rows:
                found.append(chosen.column("user_id"))
                vectors.append(matrix(scorer.score(chosen)["embeddings"]["embedding"]))
    if not vectors:
        return np.full((len(users), 0), np.nan)
    return place(pa.concat_arrays(found), np.concatenate(vectors), users)


def place(found: pa.Array, vectors_ML: Array, users: pa.Array) -> Array:
    """Put vectors of the users ``found`` into the order of ``users``, (N, L); NaN for a user without a vector."""
    position = pc.index_in(found, users)
    known = position.is_valid().to_numpy(zero_copy_only=False)
    made = np.full((len(users), vectors_ML.shape[1]), np.nan)
    made[position.drop_null().to_numpy()] = vectors_ML[known]
    return made
