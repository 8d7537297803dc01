"""Types of arrays, and the one way from vectors to Arrow lists and back.

Legend of array shapes: N = rows, L = width of a vector.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

ArrowMapper = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]
"""Function for ``mapInArrow``, which runs on a worker over the batches of one task."""


def to_lists(vectors_NL: npt.NDArray[np.floating]) -> pa.ListArray:
    """One list per row, of the array's own type of numbers."""
    rows, width = vectors_NL.shape
    return pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * width, pa.array(vectors_NL.reshape(-1)))


def matrix(lists: pa.Array | pa.ChunkedArray) -> Array:
    """Lists of one length as the rows of a matrix, (N, L); (0, 0) where there are no lists."""
    flat: Array = pc.list_flatten(lists).to_numpy(zero_copy_only=False).astype(np.float64)
    return flat.reshape(len(lists), -1 if len(lists) else 0)
