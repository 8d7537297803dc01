"""Principal directions of rows that come in blocks, in float64: the rows may be more than memory holds.

Few columns have an exact covariance. Many columns, such as the shares of 100,000 ids, have none that fits in memory,
and a randomised range finder takes its place (Halko, Martinsson & Tropp 2011, arXiv 0909.4061, algorithms 4.4 and 5.3).
Equal blocks give equal bits.

Legend of array shapes: B = rows of a block, D = dense columns, S = sparse columns, C = D + S, K = directions, P =
directions of a search.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse

from gur_spark.arrays import Array, Ints

EXACT_COLUMNS = 2_000
"""Columns up to which the covariance is exact. A covariance of so many takes 32 MB."""
OVERSAMPLED = 20
"""Directions that a randomised search follows beside those that are wanted."""
PASSES = 5
"""Passes over the rows of a randomised search, each of which multiplies by the covariance."""
ROUNDING = 1e-9
"""Variance, as a share of the largest, below which a direction is one of rounding errors."""


@dataclass(frozen=True)
class Block:
    """Some rows: dense columns, and sparse columns right of them."""

    dense_BD: Array
    sparse_BS: sparse.csr_array

    def __len__(self) -> int:
        return len(self.dense_BD)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return int(self.dense_BD.nbytes + self.sparse_BS.data.nbytes * 2)

    def times(self, matrix_CP: Array) -> Array:
        """Multiply the rows by a matrix, (B, P)."""
        dense = self.dense_BD.shape[1]
        made: Array = self.dense_BD @ matrix_CP[:dense] + self.sparse_BS @ matrix_CP[dense:]
        return made

    def transposed_times(self, matrix_BP: Array) -> Array:
        """Multiply the transposed rows by a matrix, (C, P)."""
        return np.concatenate([self.dense_BD.T @ matrix_BP, self.sparse_BS.T @ matrix_BP])

    def sums(self) -> Array:
        """Sum each column, (C,)."""
        return np.concatenate([self.dense_BD.sum(axis=0), self.sparse_BS.sum(axis=0)])

    def array(self) -> Array:
        """Lay out all columns, (B, C)."""
        return np.concatenate([self.dense_BD, self.sparse_BS.toarray()], axis=1)


Blocks = Callable[[], Iterable[Block]]
"""Function that begins a pass over the same rows."""


@dataclass(frozen=True)
class Principal:
    """Principal directions by falling variance. There are fewer than asked for where the rows vary in fewer."""

    mean_C: Array
    """Mean of each column."""
    directions_CK: Array
    """Orthonormal columns; in each, the largest entry is positive."""
    variance_K: Array
    """Variance of the rows along each direction."""
    total: float
    """Variance of the rows in all directions."""


def principal_directions(blocks: Blocks, columns: int, wanted: int) -> Principal:
    """Find the ``wanted`` directions in which rows of ``columns`` columns vary most."""
    return (_exact if columns <= EXACT_COLUMNS else _randomised)(blocks, columns, wanted)


def _exact(blocks: Blocks, columns: int, wanted: int) -> Principal:
    rows, sum_C, gram_CC = 0, np.zeros(columns), np.zeros((columns, columns))
    for block in blocks():
        x_BC = block.array()
        rows += len(block)
        sum_C += x_BC.sum(axis=0)
        gram_CC += x_BC.T @ x_BC
    mean_C = sum_C / max(rows, 1)
    covariance_CC = gram_CC / max(rows, 1) - np.outer(mean_C, mean_C)
    asked = (max(columns - wanted, 0), columns - 1)
    values_K, vectors_CK = linalg.eigh(covariance_CC, subset_by_index=asked)
    return _ordered(mean_C, vectors_CK, values_K, float(np.trace(covariance_CC)))


def _randomised(blocks: Blocks, columns: int, wanted: int) -> Principal:
    """Multiply random directions by the covariance in each pass, and solve the problem within the last ones."""
    width = min(wanted + OVERSAMPLED, columns)
    made_CP = np.random.default_rng(0).standard_normal((columns, width))
    for _ in range(PASSES):
        basis_CP = np.linalg.qr(made_CP).Q
        rows, sum_C, squares, made_CP = 0, np.zeros(columns), 0.0, np.zeros((columns, width))
        for block in blocks():
            rows += len(block)
            sum_C += block.sums()
            squares += float((block.dense_BD**2).sum() + (block.sparse_BS.data**2).sum())
            made_CP += block.transposed_times(block.times(basis_CP))
        mean_C = sum_C / max(rows, 1)
        made_CP = made_CP / max(rows, 1) - np.outer(mean_C, mean_C @ basis_CP)
    values_P, within_PP = linalg.eigh(basis_CP.T @ made_CP)
    total = squares / max(rows, 1) - float(mean_C @ mean_C)
    return _ordered(mean_C, basis_CP @ within_PP[:, -wanted:], values_P[-wanted:], total)


def _ordered(mean_C: Array, vectors_CK: Array, values_K: Array, total: float) -> Principal:
    """Turn rising values into falling ones, without directions in which nothing varies."""
    vectors_CK, values_K = vectors_CK[:, ::-1], values_K[::-1]
    kept = int((values_K > ROUNDING * max(total, np.finfo(np.float64).tiny)).sum())
    directions_CK = vectors_CK[:, :kept] * signs(vectors_CK[:, :kept])
    return Principal(mean_C, directions_CK, values_K[:kept], total)


def signs(directions_CK: Array) -> Array:
    """Sign of each direction's largest entry, (K,)."""
    entries_K = directions_CK[largest(directions_CK), np.arange(directions_CK.shape[1])]
    return np.where(entries_K < 0, -1.0, 1.0)


def largest(directions_CK: Array) -> Ints:
    """Find the column of each direction's largest entry, (K,). If some differ by rounding alone, the first counts."""
    found: Ints = np.abs(directions_CK).round(6).argmax(axis=0)
    return found
