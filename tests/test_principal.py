"""Principal directions of rows in blocks: those of a singular value decomposition of all rows, exact or randomised."""

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import sparse

from gur_spark.arrays import Array
from gur_spark.statistics import principal
from gur_spark.statistics.principal import Block, Principal, principal_directions


def rows_of(seed: int, rows: int = 400, dense: int = 5, shares: int = 40) -> tuple[Array, sparse.csr_array]:
    """Dense columns of falling size, some of them functions of others, beside sparse columns."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, dense)) @ rng.normal(size=(dense, dense)) + 2
    s = rng.random((rows, shares)) * (rng.random((rows, shares)) < 0.2) * (0.9 ** np.arange(shares)) * 4
    return x, sparse.csr_array(s)


def found_in(x: Array, s: sparse.csr_array, wanted: int, size: int = 64) -> Principal:
    def blocks() -> Iterator[Block]:
        for first in range(0, len(x), size):
            yield Block(x[first : first + size], s[first : first + size])

    return principal_directions(blocks, x.shape[1] + s.shape[1], wanted)


@pytest.fixture(params=["exact", "randomised"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "randomised":
        monkeypatch.setattr(principal, "EXACT_COLUMNS", 0)
    return str(request.param)


def test_the_directions_are_those_of_numpys_svd(way: str) -> None:
    x, s = rows_of(0)
    found = found_in(x, s, 6)
    everything = np.concatenate([x, s.toarray()], axis=1)
    centred = everything - everything.mean(0)
    _, values, right = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(found.mean_C, everything.mean(0), atol=1e-12)
    np.testing.assert_allclose(found.variance_K, values[:6] ** 2 / len(x), rtol=1e-9 if way == "exact" else 1e-3)
    np.testing.assert_allclose(found.directions_CK.T @ found.directions_CK, np.eye(6), atol=1e-9)
    np.testing.assert_allclose(np.abs((right[:4] @ found.directions_CK[:, :4]).diagonal()), 1, rtol=1e-4)
    assert found.total == pytest.approx(centred.var(axis=0).sum())


def test_equal_blocks_give_equal_bits_and_other_blocks_the_same_directions(way: str) -> None:
    x, s = rows_of(1)
    first, again, other = (found_in(x, s, 5, size) for size in (64, 64, 100))
    assert np.array_equal(first.directions_CK, again.directions_CK)
    np.testing.assert_allclose(other.directions_CK, first.directions_CK, atol=1e-6)


def test_directions_of_rounding_errors_are_left_out(way: str) -> None:
    x, _ = rows_of(2, dense=3)
    constant, twice = np.full((len(x), 1), 7.0), x[:, :1]
    found = found_in(np.concatenate([x, constant, twice], axis=1), sparse.csr_array((len(x), 0)), 5)
    assert found.directions_CK.shape == (5, 3)
    assert not found.directions_CK[3].round(9).any(), "a constant column has no weight"
    np.testing.assert_allclose(found.directions_CK[0], found.directions_CK[4], atol=1e-9)


def test_one_row_and_more_directions_than_columns_have_an_answer(way: str) -> None:
    x, s = rows_of(3, rows=1, shares=2)
    assert found_in(x, s, 9).directions_CK.shape == (7, 0)


def test_of_two_equal_largest_weights_the_first_is_positive() -> None:
    x = np.random.default_rng(4).normal(size=(50, 1))
    found = found_in(np.concatenate([x, -x], axis=1), sparse.csr_array((50, 0)), 1)
    np.testing.assert_allclose(found.directions_CK[:, 0], [0.5**0.5, -(0.5**0.5)])
