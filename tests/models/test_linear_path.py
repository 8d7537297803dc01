"""The linear path: principal components of a report's raw windows, turned by varimax, whatever the data looks like."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from gur_spark.arrays import Array
from gur_spark.batches.aggregates import AggregateBatch, to_batch
from gur_spark.batches.layout import Layout
from gur_spark.evaluate.features import principal_components, raw_windows, read_windows
from gur_spark.models.gur.dimensions import name_dimensions, name_of
from gur_spark.models.gur.linear_fit import LinearFit, Standardisation, fit_linear_path, input_block
from gur_spark.models.gur.linear_path import LinearPath
from gur_spark.models.gur.scorer import untrained_scorer
from gur_spark.registry.artefact import load_model
from gur_spark.splits import validation_side
from gur_spark.statistics import principal
from tests import versions
from tests.aggregate_data import SIZES, WINDOWS, make_snapshot, random_events, tiny_manifest, to_rows

LAYOUT = Layout.of(tiny_manifest(), SIZES)


def rows_of(users: int = 80, seed: int = 3) -> pa.RecordBatch:
    rows: pa.RecordBatch = to_rows(random_events(users, SIZES, ["amount"], seed, WINDOWS[-1]), tiny_manifest())
    return rows


def fitted(rows: pa.RecordBatch, width: int = 6, layout: Layout = LAYOUT) -> tuple[LinearPath, LinearFit]:
    """Fit a path on rows in batches of 30."""

    def batches() -> Iterable[AggregateBatch]:
        return [to_batch(rows.slice(first, 30), layout) for first in range(0, rows.num_rows, 30)]

    path, standardisation = LinearPath(layout, width), Standardisation(layout)
    for batch in batches():
        standardisation.update(batch)
    standardisation.set(path)
    return path, fit_linear_path(path, batches)


def embedded(path: LinearPath, rows: pa.RecordBatch, layout: Layout = LAYOUT) -> Array:
    made: Array = path.double()(to_batch(rows, layout).double()).numpy()
    return made


def replaced(rows: pa.RecordBatch, **columns: Any) -> pa.RecordBatch:
    kept = {name: rows[name] for name in rows.schema.names}
    changed = {name: pa.array(values, kept[name].type) for name, values in columns.items()}
    return pa.RecordBatch.from_pydict(kept | changed)


def test_the_inputs_are_the_raw_windows_of_a_report(tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path / "snapshot")
    rows = pq.read_table(Path(snapshot) / "data").combine_chunks().to_batches()[0]
    windows = read_windows(snapshot, LAYOUT, rows["user_id"])
    expected = raw_windows(windows).toarray()
    path, _ = fitted(rows)
    np.testing.assert_allclose(input_block(path, to_batch(rows, LAYOUT)).array(), expected, atol=1e-5)


def test_the_numbers_are_scikit_learns_components_up_to_a_rotation_and_one_factor(tmp_path: Path) -> None:
    rows = rows_of()
    path, fit = fitted(rows)
    found = embedded(path, rows)
    inputs = input_block(path, to_batch(rows, LAYOUT)).array()
    expected = principal_components(pytest.importorskip("scipy.sparse").csr_array(inputs), 6, seed=0)
    scale = float(path.scale)
    # Dot products, and with them distances and neighbours, are those of the components that were not rotated.
    np.testing.assert_allclose(found @ found.T, scale**2 * expected @ expected.T, atol=1e-4)
    assert fit.share == pytest.approx(expected.var(axis=0).sum() / inputs.var(axis=0).sum(), rel=1e-5)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)
    assert found.var(axis=0).mean() == pytest.approx(1, rel=1e-5)
    assert (np.diff(found.var(axis=0)) < 1e-9).all(), "the dimensions are ordered by variance"
    directions = path.directions_CK.numpy()
    np.testing.assert_allclose(directions.T @ directions, np.eye(6), atol=1e-6)
    assert (directions[np.abs(directions).argmax(axis=0), np.arange(6)] > 0).all()


def test_equal_data_gives_equal_bits_and_other_batches_of_a_user_change_nothing() -> None:
    rows = rows_of()
    first, again = fitted(rows)[0], fitted(rows)[0]
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    np.testing.assert_allclose(embedded(first, rows)[40:50], embedded(first, rows.slice(40, 10)), atol=1e-12)


def test_a_randomised_search_finds_the_same_space(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(200)
    exact, fit = fitted(rows, 3)
    monkeypatch.setattr(principal, "EXACT_COLUMNS", 0)
    searched, found = fitted(rows, 3)
    np.testing.assert_allclose(embedded(searched, rows), embedded(exact, rows), atol=2e-2)
    assert found.share == pytest.approx(fit.share, rel=1e-3)


def test_blocks_that_do_not_fit_in_memory_are_read_again_and_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of()
    monkeypatch.setattr(principal, "EXACT_COLUMNS", 0)
    kept, _ = fitted(rows)
    monkeypatch.setattr("gur_spark.models.gur.linear_fit.KEPT_BYTES", 0)
    again, _ = fitted(rows)
    assert torch.equal(kept.directions_CK, again.directions_CK)


def test_where_inputs_vary_in_fewer_directions_the_other_dimensions_are_0_and_said_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = rows_of(5)
    with caplog.at_level(logging.WARNING, logger="gur_spark"):
        path, fit = fitted(rows, 9)
    found = embedded(path, rows)
    assert (found.var(axis=0) > 1e-9).tolist() == [True] * 4 + [False] * 5
    assert not found[:, 4:].any()
    assert fit.share == pytest.approx(1)
    assert "vary in 4 directions only, so 5 of the 9 linear dimensions are 0" in caplog.text
    assert [d.name for d in name_dimensions(path, LAYOUT, fit)][4:] == [""] * 5


def test_one_user_has_an_embedding_of_zeros() -> None:
    rows = rows_of(1)
    path, _ = fitted(rows)
    assert not embedded(path, rows).any()
    assert np.isfinite(embedded(path, rows_of(9, seed=4))).all()


def test_constant_duplicated_and_empty_columns_have_no_say_of_their_own() -> None:
    rows = rows_of()
    odd = replaced(
        rows, amount_mean_7d=[None] * 80, amount_std_7d=[5.0] * 80, amount_max_30d=rows["amount_min_30d"].to_pylist()
    )
    path, fit = fitted(odd)
    names = {column.name: number for number, column in enumerate(LAYOUT.dense)}
    weights = path.directions_CK.numpy()
    assert not weights[[names["amount_mean_7d"], names["amount_std_7d"]]].round(6).any()
    np.testing.assert_allclose(weights[names["amount_max_30d"]], weights[names["amount_min_30d"]], atol=1e-6)
    # A column that was always null in training changes nothing when it has a value later.
    later = replaced(odd, amount_mean_7d=[7.0] * 80)
    np.testing.assert_allclose(embedded(path, later), embedded(path, odd), atol=1e-6)
    assert fit.share <= 1 + 1e-9


def test_a_histogram_of_100_000_ids_is_fitted_without_its_covariance() -> None:
    sizes = {**SIZES, next(iter(SIZES)): 100_000}
    layout, rows = Layout.of(tiny_manifest(), sizes), rows_of(60)
    path, fit = fitted(rows, 4, layout)
    assert path.columns > 200_000
    narrow, other = fitted(rows, 4)
    assert fit.share == pytest.approx(other.share, rel=1e-2)
    found = embedded(path, rows, layout)
    np.testing.assert_allclose(np.sort(found.var(axis=0)), np.sort(embedded(narrow, rows).var(axis=0)), rtol=0.5)
    assert found.var(axis=0).mean() == pytest.approx(1, rel=1e-4)


def test_dimensions_are_named_by_their_largest_weights() -> None:
    assert name_of({"a": 0.714, "b": -0.4, "c": 0.3}) == "a +.71, b -.40"
    assert name_of({"a": 1.0}) == "a +1.00"
    rows, field = rows_of(), next(iter(SIZES))
    path, fit = fitted(rows, 8)
    asked: dict[str, Any] = {}

    def texts(name: str, ids: Any) -> dict[int, str]:
        asked[name] = ids
        return {number: f"value {number}" for number in ids}

    found = name_dimensions(path, LAYOUT, fit, texts)
    assert [d.number for d in found] == list(range(1, 9))
    assert sum(d.variance for d in found) == pytest.approx(fit.share)
    labels = [label for d in found for label in d.loadings]
    assert any(label.startswith(f"{field}_") and label.endswith("]") for label in labels)
    assert any("[value 3]" in label for label in labels)
    assert set(asked) <= set(SIZES)
    for dimension in found:
        sizes = [abs(weight) for weight in dimension.loadings.values()]
        assert sizes == sorted(sizes, reverse=True)
        assert dimension.name.startswith(next(iter(dimension.loadings)))


def test_a_model_that_is_linear_alone_has_no_epochs_and_embeds_like_the_linear_half(tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path / "snapshot")
    model = versions.MODEL.model_copy(update={"linear_dim": 6, "loss": {"future": 1.0}})
    made = versions.trained_version([snapshot], tmp_path / "whole", model)
    assert (made.metrics["epochs"], made.checkpoints) == (0, None)
    assert not (tmp_path / "whole" / "work").exists(), "nothing was trained"
    loaded = load_model(made.path)
    rows = pq.read_table(Path(snapshot) / "data").combine_chunks().to_batches()[0]
    vectors = np.array(loaded.scorer.score(rows)["embeddings"]["embedding"].to_pylist())
    assert vectors.shape == (rows.num_rows, 6)
    assert "principal components" in Path(made.path, "MODEL_CARD.md").read_text()
    random = untrained_scorer(loaded.artefact, seed=1)
    assert not np.allclose(random.vectors(rows), vectors, atol=0.1)
    unit = versions.trained_version([snapshot], tmp_path / "unit", model.model_copy(update={"unit_norm": True}))
    of_length_one = load_model(unit.path).scorer.score(rows)["embeddings"]["embedding"].to_pylist()
    np.testing.assert_allclose(np.linalg.norm(of_length_one, axis=1), 1, atol=1e-6)


def test_both_parts_have_mean_0_and_variance_1_over_the_training_users(tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path / "snapshot")
    made = versions.trained_version([snapshot], tmp_path)
    rows = pq.read_table(Path(snapshot) / "data").combine_chunks().to_batches()[0]
    validation = validation_side(rows["user_id"], versions.TRAINING.validation_share, versions.TRAINING.seed)
    vectors = load_model(made.path).scorer.score(rows.filter(pa.array(~validation)))["embeddings"]["embedding"]
    found = np.array(vectors.to_pylist())
    for part in (found[:, :3], found[:, 3:]):
        np.testing.assert_allclose(part.mean(axis=0), 0, atol=1e-3)
        assert part.var(axis=0).mean() == pytest.approx(1, rel=1e-3)
