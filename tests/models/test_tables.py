import math

import numpy as np
import pytest
from scipy import sparse

from gur_spark.batches.layout import Layout
from gur_spark.models.gur.category_tables import (
    counted_inputs,
    factorise,
    frozen_tables,
    shares,
    shifted_pmi,
    table_width,
)
from gur_spark.models.gur.cooccurrence import count
from gur_spark.models.gur.settings import GurModel
from tests.aggregate_data import random_events, tiny_manifest, to_rows

FROZEN = GurModel(latent_dim=4, dropout=0, block_dropout=0, loss={"mse": 1.0}, tables="frozen", dense_scale="none")
TRAINED = FROZEN.model_copy(update={"loss": {"likelihood": 1.0}, "tables": "trained"})


def test_a_table_is_as_wide_as_the_rule_says() -> None:
    assert [table_width(v, TRAINED) for v in (5, 100, 10_000)] == [4, 21, 24]
    assert [table_width(v, FROZEN) for v in (5, 24, 100)] == [5, 24, 21]
    assert table_width(100, FROZEN.model_copy(update={"embedding_dim": 7})) == 7


def test_pmi_is_the_number_derived_by_hand() -> None:
    pmi = shifted_pmi(sparse.csr_array(np.array([[2, 1], [1, 1]]))).toarray()
    # ln(1 * 5 / (3 * 2)) is below 0; ln(1 * 5 / (2 * 2)) is not.
    np.testing.assert_allclose(pmi, [[math.log(10 / 9), 0], [0, math.log(5 / 4)]])


def test_a_shift_is_taken_off_every_value() -> None:
    pmi = shifted_pmi(sparse.csr_array(np.array([[2, 1], [1, 1]])), shift=0.2).toarray()
    np.testing.assert_allclose(pmi, [[0, 0], [0, math.log(5 / 4) - 0.2]], atol=1e-12)


def test_the_table_times_itself_is_the_best_approximation_of_low_rank() -> None:
    generator = np.random.default_rng(0)
    half = generator.normal(size=(12, 3))
    table = factorise(sparse.csr_array(half @ half.T), generator.dirichlet(np.ones(12)), 3)
    np.testing.assert_allclose(table @ table.T, half @ half.T, atol=1e-4)
    assert (table[np.abs(table).argmax(axis=0), range(3)] > 0).all()


def test_columns_above_the_rank_are_zero_and_nothing_in_common_gives_zeros() -> None:
    table = factorise(sparse.csr_array(np.eye(3)), np.full(3, 1 / 3), 5)
    assert table.shape == (3, 5)
    assert not table[:, 2:].any()
    assert not factorise(sparse.csr_array((4, 4)), np.full(4, 1 / 4), 2).any()


def test_no_other_table_of_the_width_has_a_smaller_weighted_error() -> None:
    generator = np.random.default_rng(1)
    half, share = generator.normal(size=(8, 8)), generator.dirichlet(np.ones(8))
    pmi = half @ half.T
    table = factorise(sparse.csr_array(pmi), share, 2).astype(np.float64)

    def error(of: np.ndarray) -> float:
        return float((np.outer(share, share) * (pmi - of @ of.T) ** 2).sum())

    nearby = [table + generator.normal(scale=scale, size=table.shape) for scale in (0.01, 0.1, 1) for _ in range(50)]
    assert error(table) < min(map(error, nearby))


def test_of_a_column_with_one_id_per_user_the_common_ids_are_told_apart_not_the_rarest() -> None:
    # By hand: P ln(1/P) of 0.6, 0.3 and 0.1 is greatest for the second.
    together = sparse.csr_array(np.diag([6, 3, 1]))
    by_hand = factorise(shifted_pmi(together), shares(together), 1)
    np.testing.assert_allclose(by_hand[:, 0], [0, math.sqrt(math.log(1 / 0.3)), 0], atol=1e-6)
    users_V = np.array([0, *range(60, 0, -1)])
    together = sparse.csr_array(np.diag(users_V))
    table = factorise(shifted_pmi(together), shares(together), 24)
    assert np.flatnonzero(np.abs(table).max(axis=1) > 1e-6).tolist() == list(range(1, 25))
    np.testing.assert_allclose(table @ table.T, np.diag(np.diag(table @ table.T)), atol=1e-5)


@pytest.mark.parametrize("batch_rows", [13, 200])
def test_frozen_tables_come_from_who_has_what_whatever_the_batches(batch_rows: int) -> None:
    sizes = {"mcc": 40, "channel": 5}
    manifest = tiny_manifest(categorical=tuple(sizes))
    rows = to_rows(random_events(200, sizes, ["amount"], seed=1, longest=30), manifest)
    layout = Layout.of(manifest, sizes)
    batches = [rows.slice(start, batch_rows) for start in range(0, 200, batch_rows)]
    has = np.zeros((200, 40), dtype=int)
    for user, ids in enumerate(rows.column("mcc_ids").to_pylist()):
        has[user, ids] = 1
    wanted = counted_inputs(layout, FROZEN)
    # The table of few ids is the identity, whoever has them.
    assert wanted == {"mcc": 40}
    found = frozen_tables(count(batches, manifest, wanted), layout, FROZEN)
    together = sparse.csr_array(has.T @ has)
    expected = factorise(shifted_pmi(together), shares(together), table_width(40, FROZEN))
    np.testing.assert_allclose(found["mcc"], expected, atol=1e-6)
    np.testing.assert_array_equal(found["channel"], np.eye(5))
    shifted = frozen_tables({"mcc": together}, layout, FROZEN.model_copy(update={"pmi_shift": 0.3}))["mcc"]
    np.testing.assert_allclose(
        shifted, factorise(shifted_pmi(together, 0.3), shares(together), table_width(40, FROZEN)), atol=1e-6
    )
    assert not np.allclose(shifted, found["mcc"], atol=1e-3)
