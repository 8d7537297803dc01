"""Linear maps: the ridge of all rows from sums, told apart from noise on held-out users, and one after another."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from gur_spark.errors import ModelError
from gur_spark.spaces.mapping import PENALTIES, LinearMap, Regression, Sums, compose

NEW, OLD = 5, 3


def pairs(seed: int, users: int = 200, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    new = rng.normal(size=(users, NEW)) * [1, 2, 0.5, 1, 3] + 4
    old = new @ rng.normal(size=(NEW, OLD)) + rng.normal(size=OLD) + noise * rng.normal(size=(users, OLD))
    return new, old, np.arange(users) % 5 == 0


def fitted(new: np.ndarray, old: np.ndarray, held: np.ndarray, parts: int = 1) -> LinearMap:
    made = Regression()
    for part in np.array_split(np.random.default_rng(0).permutation(len(new)), parts):
        made.update(new[part], old[part], held[part])
    return made.fit()


def ridge(new: np.ndarray, old: np.ndarray, penalty: float) -> Ridge:
    alpha = penalty * ((new - new.mean(0)) ** 2).sum() / NEW
    return Ridge(alpha=alpha).fit(new, old)


@pytest.mark.parametrize("noise", [0.1, 30.0])
def test_a_map_is_the_ridge_of_all_users_with_the_penalty_that_is_best_for_those_held_out(noise: float) -> None:
    new, old, held = pairs(1, noise=noise)
    errors = [((ridge(new[~held], old[~held], p).predict(new[held]) - old[held]) ** 2).sum() for p in PENALTIES]
    best = int(np.argmin(errors))
    expected = ridge(new, old, PENALTIES[best])
    found = fitted(new, old, held)
    np.testing.assert_allclose(found.matrix_NO, expected.coef_.T, atol=1e-8)
    np.testing.assert_allclose(found.shift_O, expected.intercept_, atol=1e-7)
    assert found.residual == pytest.approx(errors[best] / ((old[held] - old[held].mean(0)) ** 2).sum(), rel=1e-6)
    assert found.users == 200


def test_parts_in_any_number_and_order_make_the_same_map() -> None:
    whole, parts = fitted(*pairs(2)), fitted(*pairs(2), parts=7)
    np.testing.assert_allclose(parts.matrix_NO, whole.matrix_NO, atol=1e-10)
    np.testing.assert_allclose(parts.shift_O, whole.shift_O, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_composition_is_one_map_after_the_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths = [4, 6, 2, 3]
    steps = [
        LinearMap(matrix_NO=rng.normal(size=(a, b)), shift_O=rng.normal(size=b), residual=0.1, users=100 - a)
        for a, b in pairwise(widths)
    ]
    x = rng.normal(size=(9, 4))
    one = compose(steps, ["v3", "v2"])
    np.testing.assert_allclose(one(x), steps[2](steps[1](steps[0](x))), atol=1e-12)
    grouped = steps[0].then(steps[1].then(steps[2], "v2"), "v3")
    np.testing.assert_allclose(grouped.matrix_NO, one.matrix_NO, atol=1e-12)
    assert (one.via, one.users, one.residual) == (("v3", "v2"), 94, pytest.approx(0.3))


def test_what_a_linear_map_made_comes_back_whole_in_another_width() -> None:
    new, old, held = pairs(3, noise=0)
    found = fitted(new, old, held)
    np.testing.assert_allclose(found(new), old, atol=1e-3)
    assert found.residual < 1e-9


def test_the_error_from_sums_is_that_of_the_rows() -> None:
    new, old, _ = pairs(4)
    matrix, shift = np.random.default_rng(0).normal(size=(NEW, OLD)), np.ones(OLD)
    assert Sums.of(new, old).error(matrix, shift) == pytest.approx(((new @ matrix + shift - old) ** 2).sum())


def test_too_few_users_are_refused() -> None:
    with pytest.raises(ModelError, match=r"needs 25 users .* there are 24"):
        fitted(*pairs(5, users=24))
    with pytest.raises(ModelError, match="there are 0"):
        Regression().fit()


def test_a_map_is_kept_to_the_last_bit_and_a_damaged_one_is_none() -> None:
    made = fitted(*pairs(6))
    read = LinearMap.from_json(made.to_json())
    assert (read.matrix_NO == made.matrix_NO).all()
    assert (read.shift_O == made.shift_O).all()
    assert (read.residual, read.users, read.via) == (made.residual, made.users, ())
    for damaged in (made.to_json()[:50], "{}", '{"matrix_NO": [[1, 2]], "shift_O": [1], "via": []}', "[]"):
        with pytest.raises((ValueError, KeyError, TypeError)):
            LinearMap.from_json(damaged)
