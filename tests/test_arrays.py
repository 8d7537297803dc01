import numpy as np
import pyarrow as pa
import pytest

from gur_spark.arrays import matrix, to_lists


def test_vectors_become_lists_of_their_own_type_and_the_same_vectors_again() -> None:
    vectors_NL = np.array([[1.5, -2.25, 0.0], [3.0, 1e-7, 7.0]], np.float32)
    lists = to_lists(vectors_NL)
    assert lists.type == pa.list_(pa.float32())
    assert lists.to_pylist() == vectors_NL.tolist()
    assert np.array_equal(matrix(lists), vectors_NL.astype(np.float64))


def test_a_column_in_chunks_and_a_slice_of_one_are_read_as_they_are() -> None:
    lists = to_lists(np.arange(12.0).reshape(4, 3))
    chunked = pa.chunked_array([lists.slice(1, 1), lists.slice(2, 2)])
    assert matrix(chunked).tolist() == matrix(lists.slice(1)).tolist() == [[3, 4, 5], [6, 7, 8], [9, 10, 11]]


@pytest.mark.parametrize("width", [0, 3])
def test_no_vectors_are_no_lists(width: int) -> None:
    lists = to_lists(np.zeros((0, width)))
    assert (len(lists), matrix(lists).shape) == (0, (0, 0))
