"""Nearest users by their embeddings: exact, in blocks of bounded memory, or approximate, by an HNSW index.

Legend of array shapes: N = users, Q = users asked about, B = users of a block, P = pairs, L = width of an embedding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession

from gur_spark.arrays import Array, Floats, Ints, matrix
from gur_spark.config.pipeline import Config
from gur_spark.consumers.export import EMBEDDINGS, USER_IDS, read_manifest
from gur_spark.consumers.nearest import (
    Metric,
    NearPairs,
    best,
    candidates,
    check_metric,
    joined,
    kth_similarity,
    no_pairs,
    ranks,
    scaled,
    similarity,
)
from gur_spark.errors import ConsumerError
from gur_spark.extras import import_extra
from gur_spark.outputs.embeddings import read_embeddings

QUERIES, BLOCK = 256, 8192
"""Users asked about and users compared with at a time. Their scores take 16 MB."""
LINKS, DEPTH = 16, 200
"""Parameters of the HNSW graph (Malkov, Yashunin 2018): links per user (M) and candidates of a search (ef)."""


@dataclass(frozen=True)
class UserVectors:
    """Users with their embeddings, in memory or in a mapped file."""

    ids_N: pa.Array
    x_NL: Floats
    place_N: Ints = field(init=False)
    """Place of each user in the order of the ids."""

    def __post_init__(self) -> None:
        if self.x_NL.ndim != 2 or len(self.x_NL) != len(self.ids_N):
            raise ConsumerError(f"expected a row per user, got shape {self.x_NL.shape} for {len(self.ids_N)} ids")
        place_N = np.empty(len(self.ids_N), np.int64)
        place_N[pc.sort_indices(self.ids_N).to_numpy()] = np.arange(len(place_N))
        object.__setattr__(self, "place_N", place_N)

    @classmethod
    def collect(cls, frame: DataFrame) -> "UserVectors":
        """Collect rows with ``user_id, embedding``. A batch is freed once it is copied, so memory holds them once."""
        batches = frame.select("user_id", "embedding").toArrow().to_batches()
        rows = sum(batch.num_rows for batch in batches)
        ids, at = [], 0
        x_NL = np.empty((rows, 0), np.float32)
        while batches:
            batch = batches.pop(0)
            part = matrix(batch["embedding"])
            if not x_NL.shape[1]:
                x_NL = np.empty((rows, part.shape[1]), np.float32)
            x_NL[at : at + len(part)] = part
            at += len(part)
            ids.append(batch["user_id"])
        return cls(pa.concat_arrays(ids), x_NL)

    @classmethod
    def open(cls, folder: str) -> "UserVectors":
        """Map the files of a NumPy export (``gur_spark.consumers.export``).

        Raises:
            ConsumerError: the folder is no such export.
        """
        if read_manifest(folder).form != "numpy":
            raise ConsumerError(f"{folder} is a Parquet export; expected one with --format numpy")
        ids_N, x_NL = (np.load(Path(folder) / name, mmap_mode="r") for name in (USER_IDS, EMBEDDINGS))
        return cls(pa.array(ids_N), x_NL)

    def rows(self, users: Sequence[Any]) -> Ints:
        """Rows of these users.

        Raises:
            ConsumerError: some have no embedding; the message names the first of them.
        """
        try:
            wanted = pa.array(users, self.ids_N.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ConsumerError(f"user ids are {self.ids_N.type}: {error}") from error
        found = pc.index_in(wanted, self.ids_N)
        if found.null_count:
            unknown = wanted.filter(pc.is_null(found))
            raise ConsumerError(f"{len(unknown)} users have no embedding: {unknown[:5].to_pylist()} ...")
        where: Ints = found.to_numpy().astype(np.int64)
        return where


Find = Callable[[Ints, int], NearPairs]
"""Function: (rows of users, k) -> at least the k nearest of each, if there are so many."""


@dataclass(frozen=True)
class Search:
    """Search for nearest users by one of several methods."""

    users: UserVectors
    metric: Metric
    find: Find

    def nearest(self, of: Sequence[Any] | None = None, k: int = 10) -> pa.Table:
        """Nearest users of these users, or of everyone: ``user_id, rank`` (from 1), ``neighbour, score``.

        A user is not its own neighbour. The score is the cosine, the dot product or the Euclidean distance. A user has
        fewer than ``k`` rows where there are not so many other users.

        Raises:
            ConsumerError: a user has no embedding, or ``k`` is not above 0.
        """
        return pa.Table.from_batches(self.batches(of, k), self.schema)

    def batches(self, of: Sequence[Any] | None = None, k: int = 10) -> Iterator[pa.RecordBatch]:
        """The rows of ``nearest``, for some users at a time."""
        if k < 1:
            raise ConsumerError(f"k: expected a number above 0, got {k}")
        asked = np.arange(len(self.users.ids_N)) if of is None else self.users.rows(of)
        for start in range(0, len(asked), QUERIES):
            rows_Q = asked[start : start + QUERIES]
            yield self._batch(rows_Q, best(self.find(rows_Q, k), k, self.users.place_N))

    @property
    def schema(self) -> pa.Schema:
        user = self.users.ids_N.type
        return pa.schema({"user_id": user, "rank": pa.int32(), "neighbour": user, "score": pa.float64()})

    def _batch(self, rows_Q: Ints, found: NearPairs) -> pa.RecordBatch:
        score_P = np.sqrt(-found.similarity_P) if self.metric == "euclidean" else found.similarity_P
        columns = [
            self.users.ids_N.take(pa.array(rows_Q[found.asked_P])),
            pa.array(ranks(found.asked_P) + 1, pa.int32()),
            self.users.ids_N.take(pa.array(found.near_P)),
            pa.array(score_P),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def nearest_users(
    spark: SparkSession,
    config: Config,
    users: Sequence[Any] | None = None,
    *,
    k: int = 10,
    metric: Metric = "cosine",
    version: str = "published",
    as_of: date | None = None,
    approximate: bool = False,
) -> pa.Table:
    """Nearest users of these users, or of everyone; see ``Search.nearest``.

    For more than one question, make ``exact(UserVectors.collect(read_embeddings(...)), metric)`` once and ask that.

    Args:
        version, as_of: as in ``read_embeddings``.
        approximate: search an HNSW index, which takes longer to make and is faster to ask (extra ``neighbours``).

    Raises:
        TableError: there are no such embeddings.
        ConsumerError: an unknown metric or user.
        MissingExtra: Voyager is not installed.
    """
    check_metric(metric)
    everyone = UserVectors.collect(read_embeddings(spark, config, version, as_of))
    return (hnsw(everyone, metric) if approximate else exact(everyone, metric)).nearest(users, k)


def exact(users: UserVectors, metric: Metric = "cosine") -> Search:
    """A search that compares with every user, block by block.

    Raises:
        ConsumerError: an unknown metric.
    """
    check_metric(metric)

    def find(rows_Q: Ints, k: int) -> NearPairs:
        q_QL = scaled(users.x_NL[rows_Q], metric)
        found = no_pairs()
        for first in range(0, len(users.x_NL), BLOCK):
            x_BL = scaled(users.x_NL[first : first + BLOCK], metric)
            may_be_near_QB = candidates(q_QL, x_BL, rows_Q - first, k, metric, kth_similarity(found, k, len(rows_Q)))
            asked_P, near_P = np.nonzero(may_be_near_QB)
            more = NearPairs(asked_P, near_P + first, similarity(q_QL, x_BL, asked_P, near_P, metric))
            found = best(joined(found, more), k, users.place_N)
        return found

    return Search(users, metric, find)


def hnsw(users: UserVectors, metric: Metric = "cosine", threads: int = 1, depth: int = DEPTH) -> Search:
    """A search by an HNSW index. The scores of the users that it finds are exact.

    Args:
        threads: threads that make the index; with more than one, the index is another one each time.
        depth: candidates of a search; with more, it finds more of the nearest users and takes longer.

    Raises:
        ConsumerError: an unknown metric, or (on search) an index that does not find ``k`` users.
        MissingExtra: Voyager is not installed.
    """
    check_metric(metric)
    voyager = import_extra("voyager", "neighbours", "an approximate search")
    space = {"cosine": "Cosine", "dot": "InnerProduct", "euclidean": "Euclidean"}[metric]
    n, width = users.x_NL.shape
    index = voyager.Index(
        getattr(voyager.Space, space), width, M=LINKS, ef_construction=DEPTH, random_seed=1, max_elements=max(n, 1)
    )
    for first in range(0, n, BLOCK):
        # Voyager refuses arrays that cannot be written to, such as those of a mapped file.
        block_BL = np.array(users.x_NL[first : first + BLOCK])
        index.add_items(block_BL, range(first, first + len(block_BL)), num_threads=threads)

    def find(rows_Q: Ints, k: int) -> NearPairs:
        wanted = min(k + 1, n)
        try:
            near_QK, _ = index.query(
                np.array(users.x_NL[rows_Q]), wanted, num_threads=threads, query_ef=max(depth, wanted)
            )
        except voyager.RecallError as error:
            raise ConsumerError(
                f"the index does not find {k} users near each user: {error}; use the exact search"
            ) from error
        asked_P, near_P = np.repeat(np.arange(len(rows_Q)), wanted), near_QK.reshape(-1).astype(np.int64)
        other_P = near_P != rows_Q[asked_P]
        asked_P, near_P = asked_P[other_P], near_P[other_P]
        return NearPairs(asked_P, near_P, _similarity_of_rows(users, rows_Q[asked_P], near_P, metric))

    return Search(users, metric, find)


def _similarity_of_rows(users: UserVectors, asked_P: Ints, near_P: Ints, metric: Metric) -> Array:
    a_PL, b_PL = (scaled(users.x_NL[rows], metric) for rows in (asked_P, near_P))
    pair_P = np.arange(len(asked_P))
    return similarity(a_PL, b_PL, pair_P, pair_P, metric)
