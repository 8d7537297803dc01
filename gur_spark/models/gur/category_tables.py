"""Category tables: how wide they are, and how frozen ones are made from co-occurrence."""

# V = ids of one field, E = width of a table

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import svds

from gur_spark.arrays import Array
from gur_spark.batches.layout import Layout
from gur_spark.models.gur.settings import GurModel
from gur_spark.models.widths import WIDEST, fastai_width

Table = npt.NDArray[np.float32]


def table_width(size: int, config: GurModel) -> int:
    """Width E of the table of a field with ``size`` ids.

    ``embedding_dim`` where it is given, else min(24, 1.6 V^0.56) (the rule of fastai's tabular models).
    A frozen table of few ids is the identity, so that its pooled block is the histogram itself.
    """
    if config.embedding_dim is not None:
        return config.embedding_dim
    if config.tables == "frozen" and size <= WIDEST:
        return size
    return fastai_width(size)


def counted_inputs(layout: Layout, config: GurModel) -> dict[str, int]:
    """Name and size of the inputs whose frozen tables are made from co-occurrence: all but those with the identity."""
    return {field: size for field, size in layout.sizes.items() if table_width(size, config) != size}


def frozen_tables(together: Mapping[str, sparse.csr_array], layout: Layout, config: GurModel) -> dict[str, Table]:
    """One (V, E) table per input, from which ids the same users have.

    Args:
        together: of each of the ``counted_inputs``, how many users have both of two ids, (V, V)
            (``training.cooccurrence``).
    """
    counted = counted_inputs(layout, config)
    return {
        field: factorise(
            shifted_pmi(together[field], config.pmi_shift), shares(together[field]), table_width(size, config)
        )
        if field in counted
        else np.eye(size, dtype=np.float32)
        for field, size in layout.sizes.items()
    }


def shifted_pmi(together_VV: sparse.csr_array, shift: float = 0.0) -> sparse.csr_array:
    """Positive pointwise mutual information of two ids having the same user, minus ``shift`` (= ln k).

    ``max(0, ln(P(a, b) / (P(a) P(b))) - shift)`` (Levy & Goldberg 2014). An id co-occurs with itself in each of
    its users, which keeps apart the ids that otherwise have the same company. All pairs are counted once per
    user, whatever the number of events.

    By hand: of 5 pairs (a,a) 2, (a,b) 1, (b,a) 1, (b,b) 1, a has 3 and b 2: pmi(a, a) = ln(2 * 5 / (3 * 3)).
    """
    pairs = together_VV.tocoo()
    total = pairs.data.sum()
    of_id = together_VV.sum(axis=1).astype(np.float64)
    pmi = np.log(pairs.data * total / (of_id[pairs.row] * of_id[pairs.col])) - shift
    kept = pmi > 0
    return sparse.csr_array((pmi[kept], (pairs.row[kept], pairs.col[kept])), shape=together_VV.shape)


def shares(together_VV: sparse.csr_array) -> Array:
    """The share of each id among the pairs, (V,); 0 for one that nobody has."""
    of_id: Array = together_VV.sum(axis=1).astype(np.float64)
    share_V: Array = of_id / max(of_id.sum(), 1.0)
    return share_V


def factorise(pmi_VV: sparse.csr_array, share_V: Array, width: int) -> Table:
    """The table whose products ``t_a . t_b`` come nearest to ``pmi``, (V, width); columns above the rank are 0.

    An error counts as often as the two ids do, ``sum P(a) P(b) (pmi - t_a . t_b)^2`` (weights of rank one: Srebro &
    Jaakkola 2003), which ``D^-1/2 U sqrt(S)`` makes least, ``U S V'`` being the truncated SVD of
    ``D^1/2 pmi D^1/2`` and D the shares. Unweighted, the rarest ids would take all columns where a user has one id:
    pmi is then diagonal, ln(1 / P(a)).

    By hand: one id per user with shares 1/2, 1/4, 1/4, one column: P ln(1/P) is equal, 0.347, for all three; with
    shares 0.6, 0.3, 0.1 it is 0.306, 0.361, 0.230: the column is the second id's, sqrt(ln(1 / 0.3)) = 1.097.

    Deterministic: ARPACK starts from a fixed vector, and in each column the greatest component is positive.
    """
    size = pmi_VV.shape[0]
    rank = min(width, size - 1)
    table = np.zeros((size, width), dtype=np.float32)
    if pmi_VV.nnz == 0:
        return table
    start = np.random.default_rng(0).standard_normal(size)
    root_V = np.sqrt(share_V)
    left, values, _ = svds(sparse.diags_array(root_V) @ pmi_VV @ sparse.diags_array(root_V), k=rank, v0=start)
    order = np.argsort(-values)
    left = left[:, order] * np.sqrt(np.maximum(values[order], 0))
    left = np.divide(left, root_V[:, None], out=np.zeros_like(left), where=root_V[:, None] > 0)
    signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(rank)])
    table[:, :rank] = left * np.where(signs == 0, 1, signs)
    return table
