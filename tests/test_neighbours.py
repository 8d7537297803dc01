"""Nearest users: those of all distances, whatever the blocks; ties go to the smaller id; an index finds nearly all."""

from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gur_spark import nearest_users
from gur_spark.consumers import nearest, neighbours
from gur_spark.consumers.neighbours import Metric, UserVectors, exact, hnsw
from gur_spark.errors import ConsumerError, MissingExtra, TableError
from gur_spark.serving.publishing import publish
from gur_spark.tables.delta import Tables
from tests import embedded

pytestmark = pytest.mark.any_engine

METRICS: list[Metric] = ["cosine", "dot", "euclidean"]
WIDTH = 5


def users(count: int = 60, seed: int = 0, values: int | None = None) -> UserVectors:
    """Ids in no order; with ``values``, small whole numbers, of which many are equal."""
    rng = np.random.default_rng(seed)
    x_NL = rng.normal(size=(count, WIDTH)) if values is None else rng.integers(0, values, (count, WIDTH))
    return UserVectors(pa.array(rng.permutation(count) * 7 + 3), x_NL.astype(np.float32))


def by_hand(of: UserVectors, user: int, k: int, metric: Metric) -> list[tuple[int, float]]:
    """Every other user, compared one by one."""
    ids = of.ids_N.to_pylist()
    mine = of.x_NL[ids.index(user)].astype(float)

    def score(other: np.ndarray) -> float:
        if metric == "euclidean":
            return float(np.sqrt(((mine - other) ** 2).sum()))
        lengths = np.sqrt((mine**2).sum()) * np.sqrt((other**2).sum()) if metric == "cosine" else 1.0
        return float((mine * other).sum() / lengths) if lengths else 0.0

    # Scores that round differently are ties, too: whole numbers make many.
    scored = [(round(score(x), 9), i) for i, x in zip(ids, of.x_NL.astype(float), strict=True) if i != user]
    sign = 1 if metric == "euclidean" else -1
    return [(i, s) for s, i in sorted(scored, key=lambda pair: (sign * pair[0], pair[1]))[:k]]


def found(table: pa.Table) -> dict[int, list[tuple[int, float]]]:
    of: dict[int, list[tuple[int, float]]] = {}
    for row in table.to_pylist():
        of.setdefault(row["user_id"], []).append((row["neighbour"], round(row["score"], 9)))
        assert row["rank"] == len(of[row["user_id"]])
    return of


@pytest.mark.parametrize("metric", METRICS)
def test_exact_neighbours_are_those_of_all_distances_whatever_the_blocks(
    metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = users()
    expected = {user: by_hand(everyone, user, 4, metric) for user in everyone.ids_N.to_pylist()}
    for queries, block in ((256, 8192), (7, 9), (1, 1)):
        monkeypatch.setattr(neighbours, "QUERIES", queries)
        monkeypatch.setattr(neighbours, "BLOCK", block)
        assert found(exact(everyone, metric).nearest(k=4)) == expected


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(2, 30),
    k=st.integers(1, 8),
    metric=st.sampled_from(["dot", "euclidean"]),
)
def test_ties_go_to_the_smaller_id_whatever_the_blocks(seed: int, count: int, k: int, metric: Metric) -> None:
    everyone = users(count, seed, values=2)
    expected = {user: by_hand(everyone, user, k, metric) for user in everyone.ids_N.to_pylist()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "BLOCK", 1 + seed % 11)
        patch.setattr(nearest, "PAIRS", 1 + seed % 5)
        assert found(exact(everyone, metric).nearest(k=k)) == expected


def test_users_with_one_and_the_same_embedding_tie_in_the_order_of_their_ids() -> None:
    same = UserVectors(pa.array([5, 3, 9, 1]), np.full((4, 3), 0.1, np.float32))
    for metric in METRICS:
        assert [n for n, _ in found(exact(same, metric).nearest([3]))[3]] == [1, 5, 9]


def test_a_user_without_a_direction_has_the_cosine_0_with_all_and_text_ids_work() -> None:
    everyone = UserVectors(pa.array(["b", "a", "c"]), np.array([[0, 0], [1, 0], [2, 0]], np.float32))
    assert exact(everyone).nearest(["b", "c"], k=1).to_pylist() == [
        {"user_id": "b", "rank": 1, "neighbour": "a", "score": 0.0},
        {"user_id": "c", "rank": 1, "neighbour": "a", "score": 1.0},
    ]


@pytest.mark.parametrize("metric", METRICS)
def test_an_index_finds_nearly_all_of_them_with_exact_scores(metric: Metric) -> None:
    everyone = users(500)
    ours, theirs = (found(search(everyone, metric).nearest(k=10)) for search in (hnsw, exact))
    kept = [len(set(ours[user]) & set(theirs[user])) / 10 for user in theirs]
    assert np.mean(kept) > 0.98
    assert found(hnsw(everyone, metric).nearest([3], k=10)) == {3: ours[3]}


def test_what_cannot_be_answered_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    search = exact(users())
    with pytest.raises(ConsumerError, match=r"2 users have no embedding: \[1, 2\]"):
        search.nearest([3, 1, 2])
    with pytest.raises(ConsumerError, match="user ids are int64"):
        search.nearest(["three"])
    with pytest.raises(ConsumerError, match="k: expected a number above 0, got 0"):
        search.nearest([3], k=0)
    with pytest.raises(ConsumerError, match=r"unknown metric 'cosin'; expected one of .*; did you mean 'cosine'\?"):
        exact(users(), "cosin")  # type: ignore[arg-type]
    with pytest.raises(ConsumerError, match="expected a row per user"):
        UserVectors(pa.array([1, 2]), np.zeros((3, 4), np.float32))
    monkeypatch.setitem(__import__("sys").modules, "voyager", None)
    with pytest.raises(MissingExtra, match=r"an approximate search needs: pip install 'gur-spark\[neighbours\]'"):
        hnsw(users())


def test_the_published_rows_are_asked_or_those_of_a_version_and_date(tables: Tables, make_config: Any) -> None:
    config = make_config()
    with pytest.raises(TableError, match="nothing is published"):
        nearest_users(tables.spark, config)
    expected = {version: users(seed=seed) for seed, version in enumerate(("one", "two"))}
    for version, everyone in expected.items():
        embedded.add(tables, version, date(2024, 6, 1), everyone.ids_N, everyone.x_NL)
    publish(tables, config, "one", date(2024, 6, 1), "first")
    assert found(nearest_users(tables.spark, config, [3], k=3)) == {3: by_hand(expected["one"], 3, 3, "cosine")}
    other = nearest_users(tables.spark, config, [3], k=3, metric="dot", version="two", approximate=True)
    assert found(other) == {3: by_hand(expected["two"], 3, 3, "dot")}
