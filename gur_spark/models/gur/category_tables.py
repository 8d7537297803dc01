"""Category tables: their widths, and frozen tables made from co-occurrence."""

# V = ids of one field, E = width of a table

from collections.abc import Mapping

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from gur_spark.arrays import Array, Floats
from gur_spark.batches.layout import Layout
from gur_spark.models.gur.settings import GurModel
from gur_spark.models.widths import WIDEST, fastai_width

Table = Floats


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
    """Name and size of the inputs whose frozen tables are made from co-occurrence; tables of few ids are identities."""
    return {field: size for field, size in layout.sizes.items() if table_width(size, config) != size}


def frozen_tables(together: Mapping[str, sparse.csr_array], layout: Layout, config: GurModel) -> dict[str, Table]:
    """Make one (V, E) table per input from the ids that users have in common.

    Args:
        together: for each of the ``counted_inputs``, the number of users with both of two ids, (V, V)
            (``cooccurrence``).
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
    """Compute the positive pointwise mutual information of two ids having the same user, minus ``shift`` (= ln k).

    It is ``max(0, ln(P(a, b) / (P(a) P(b))) - shift)`` (Levy & Goldberg 2014). An id co-occurs with itself in each of
    its users, which keeps apart ids that otherwise share their users. All pairs are counted once per user, whatever the
    number of events.

    By hand: 5 pairs are (a,a) 2, (a,b) 1, (b,a) 1, (b,b) 1, so a has 3 and b 2: pmi(a, a) = ln(2 * 5 / (3 * 3)).
    """
    pairs = together_VV.tocoo()
    total = pairs.data.sum()
    of_id = together_VV.sum(axis=1).astype(np.float64)
    pmi = np.log(pairs.data * total / (of_id[pairs.row] * of_id[pairs.col])) - shift
    kept = pmi > 0
    return sparse.csr_array((pmi[kept], (pairs.row[kept], pairs.col[kept])), shape=together_VV.shape)


def shares(together_VV: sparse.csr_array) -> Array:
    """Share of each id among the pairs, (V,); 0 for an id that nobody has."""
    of_id: Array = together_VV.sum(axis=1).astype(np.float64)
    share_V: Array = of_id / max(of_id.sum(), 1.0)
    return share_V


def factorise(pmi_VV: sparse.csr_array, share_V: Array, width: int) -> Table:
    """Factorise ``pmi``: the products ``t_a . t_b`` of the table (V, width) come nearest to it. Columns above the rank
    are 0.

    An error weighs as much as the shares of its two ids: ``sum P(a) P(b) (pmi - t_a . t_b)^2`` (weights of rank one:
    Srebro & Jaakkola 2003). ``D^-1/2 U sqrt(S)`` minimises it, where ``U S V'`` is the truncated SVD of ``D^1/2 pmi
    D^1/2`` and D holds the shares. Without weights, the rarest ids would take all columns where each user has one id:
    pmi is then diagonal, ln(1 / P(a)).

    By hand: one id per user with shares 1/2, 1/4, 1/4, and one column: P ln(1/P) is 0.347 for all three. With shares
    0.6, 0.3, 0.1 it is 0.306, 0.361, 0.230: the column belongs to the second id and is sqrt(ln(1 / 0.3)) = 1.097.

    The result is deterministic: ARPACK starts from a fixed vector, and in each column the greatest component is
    positive.
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
