"""Recommendations and vectors of items: judged by gates of their own, published and rolled back together, and read."""

from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import numpy as np
import pytest

from gur_spark.errors import ConfigError, GateError, TableError
from gur_spark.outputs.catalogue import find_output
from gur_spark.outputs.embeddings import EMBEDDINGS
from gur_spark.outputs.gates import VersionRows, check
from gur_spark.outputs.recommendations import (
    ITEM_EMBEDDINGS,
    RECOMMENDATIONS,
    read_item_embeddings,
    read_recommendations,
)
from gur_spark.registry.artefact import unpack
from gur_spark.registry.published import Published, published
from gur_spark.serving import scoring
from gur_spark.serving.publishing import check_replacement, outputs_of, publish, rollback
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.delta import Tables
from tests.model_rows import add_row
from tests.versions import untrained_version

pytestmark = pytest.mark.any_engine

USERS, ITEMS, WIDTH, SHOWN = 240, 260, 6, 4
D1, D2, D3 = date(2024, 6, 1), date(2024, 6, 8), date(2024, 6, 15)
BOTH = ("recommendations", "item_embeddings")

Lists = list[list[str]]


def lists(shift: int = 0, catalogue: int = ITEMS) -> Lists:
    """Each user's items, the first of which is ``shift`` after the user's number."""
    return [[f"i{(user + shift + n) % catalogue}" for n in range(SHOWN)] for user in range(USERS)]


def vectors(seed: int = 0) -> np.ndarray:
    """Vectors of items in a few clusters, so that neighbours mean something."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(8, WIDTH))[np.arange(ITEMS) % 8] * 3 + rng.normal(size=(ITEMS, WIDTH))


X = vectors()
MOVED = X + np.random.default_rng(1).normal(scale=0.1, size=X.shape)


def put(tables: Tables, output: str, version: str, day: date, rows: list[Any]) -> None:
    """Append a scorer's rows, written by hand."""
    found = find_output(output)
    found.create(tables, "long")
    given = tables.spark.createDataFrame(rows, found.scored_schema("long"))
    tables.append(found.keyed(given, version, day, "long"), output)


def recommend(tables: Tables, version: str, day: date, shown: Lists) -> None:
    rows = [
        (user, [(item, float(len(items) - place), 1 / (place + 2)) for place, item in enumerate(items)])
        for user, items in enumerate(shown)
    ]
    put(tables, "recommendations", version, day, rows)


def embed_items(tables: Tables, version: str, day: date, x: np.ndarray) -> None:
    put(tables, "item_embeddings", version, day, [(f"i{n}", row, n) for n, row in enumerate(x.tolist())])


def score(tables: Tables, version: str, day: date, shown: Lists, x: np.ndarray) -> None:
    recommend(tables, version, day, shown)
    embed_items(tables, version, day, x)


@pytest.fixture
def config(make_config: Any) -> Any:
    strict = {"max_norm_ratio": 1.2, "max_psi": 0.25, "max_domain_auc": 0.8, "min_neighbours": 0.4}
    shown = {"min_item_coverage": 0.5, "min_item_overlap": 0.25}
    return make_config({"gates": {**strict, **shown, "min_rows_share": 0.9}})


@pytest.fixture
def first(tables: Tables, config: Any) -> None:
    """Version one of a recommender that writes both outputs is published."""
    for version in ("one", "two"):
        add_row(tables, version, kind="recommender", outputs=list(BOTH))
    score(tables, "one", D1, lists(), X)
    publish(tables, config, "one", D1, "first")


@pytest.mark.parametrize(
    ("shown", "x", "failed"),
    [
        (lists(shift=1), MOVED, []),
        (lists(shift=3), MOVED, []),
        (lists()[: USERS // 2], MOVED, ["recommendations of one", "rows, as a share of those published, 0.500"]),
        (lists(catalogue=40), MOVED, ["different items, as a share of those published, 0.1", "expected at least 0.5"]),
        (lists(shift=4), MOVED, ["share of a user's items that stay 0.000, expected at least 0.25"]),
        (lists(), X * 1.3, ["item_embeddings of one", "norm ratio 1.300, expected at most 1.2"]),
        (lists(), X + 2, ["PSI of projections", "domain classifier AUC"]),
        (lists(), X[np.random.default_rng(4).permutation(ITEMS)], ["share of neighbours kept"]),
    ],
    ids=["one item new", "one item stays", "half", "few items", "all new", "longer", "moved", "other neighbours"],
)
def test_what_is_refused_is_named_and_nothing_of_either_output_is_switched(
    tables: Tables, config: Any, first: None, shown: Lists, x: np.ndarray, failed: list[str]
) -> None:
    score(tables, "one", D2, shown, x)
    if not failed:
        done = publish(tables, config, "one", D2, "weekly")
        assert done.rows == {"recommendations": len(shown), "item_embeddings": ITEMS}
        assert {outcome.gate for outcome in done.outcomes} > {"share of a user's items that stay", "norm ratio"}
        return
    with pytest.raises(GateError) as error:
        publish(tables, config, "one", D2, "weekly")
    assert all(gate in str(error.value) for gate in failed), error.value
    assert published(tables, config.name) == Published(model_version="one", as_of=D1)


def side(tables: Tables, day: date, shown: Lists) -> VersionRows:
    recommend(tables, "one", day, shown)
    rows = RECOMMENDATIONS.select(tables, "one", day)
    return VersionRows(output="recommendations", model_version="one", as_of=day, rows=rows, space="one")


def test_what_is_shown_is_measured_as_the_plain_rule_has_it(tables: Tables, config: Any) -> None:
    rng = np.random.default_rng(2)

    def some(catalogue: int, count: int) -> list[str]:
        drawn: list[str] = rng.choice([f"i{n}" for n in range(catalogue)], size=count, replace=False).tolist()
        return drawn

    before, after = [some(30, n % 5 + 1) for n in range(USERS)], [some(25, 3) for _ in range(USERS + 9)]
    gates = config.gates.model_copy(update={"min_item_overlap": 0.0})
    found = check(side(tables, D2, after), side(tables, D1, before), gates)
    stays = [len(set(b) & set(a)) / len(b) for a, b in zip(after, before, strict=False)]
    items = [len({item for shown in lists for item in shown}) for lists in (after, before)]
    values = {outcome.gate: outcome.value for outcome in found}
    assert values["different items, as a share of those published,"] == pytest.approx(items[0] / items[1])
    assert values["share of a user's items that stay"] == pytest.approx(np.mean(stays))
    assert values["rows, as a share of those published,"] == pytest.approx((USERS + 9) / USERS)


def test_gates_that_are_off_and_users_too_few_are_not_asked(tables: Tables, make_config: Any) -> None:
    few = [side(tables, day, lists(shift)[:50]) for day, shift in ((D1, 0), (D2, 50))]
    gates = make_config({"gates": {"min_item_coverage": None}}).gates
    assert [outcome.gate for outcome in check(few[1], few[0], gates)] == ["rows, as a share of those published,"]
    off = make_config({"gates": dict.fromkeys(("min_rows_share", "min_item_coverage", "min_item_overlap"))}).gates
    assert check(few[1], few[0], off) == []


def test_recommendations_of_other_users_cannot_be_compared_and_do_not_pass(tables: Tables, config: Any) -> None:
    before = side(tables, D1, lists())
    others = [(user + 10_000, [("i1", 1.0, None), (f"i{user % ITEMS}x", 0.5, None)]) for user in range(USERS)]
    put(tables, "recommendations", "one", D2, others)
    rows = RECOMMENDATIONS.select(tables, "one", D2)
    after = VersionRows(output="recommendations", model_version="one", as_of=D2, rows=rows, space="one")
    with pytest.raises(GateError, match=r"users in common 0\.000, expected at least 200"):
        check(after, before, config.gates)


def test_both_outputs_are_published_rolled_back_and_read_together(tables: Tables, config: Any, first: None) -> None:
    spark = tables.spark
    score(tables, "two", D2, lists(shift=1), MOVED)
    assert [output.name for output in outputs_of(tables, "two")] == list(BOTH)
    done = publish(tables, config, "two", D2, "monthly")
    assert done.rows == {"recommendations": USERS, "item_embeddings": ITEMS}
    rows = tables.read("published").orderBy("switched_at").collect()
    assert [(row.model_version, row.outputs) for row in rows] == [("one", list(BOTH)), ("two", list(BOTH))]

    read = {row.user_id: row for row in read_recommendations(spark, config).collect()}
    assert read.keys() == set(range(USERS))
    assert {(row.model_version, row.as_of) for row in read.values()} == {("two", D2)}
    assert [(one.item, one.score, one.propensity) for one in read[7]["items"]] == [
        ("i8", 4.0, 0.5), ("i9", 3.0, pytest.approx(1 / 3)), ("i10", 2.0, 0.25), ("i11", 1.0, pytest.approx(0.2)),
    ]  # fmt: skip
    items = {row.item: row for row in read_item_embeddings(spark, config).collect()}
    assert items["i3"].embedding == pytest.approx(MOVED[3].tolist(), rel=1e-6)
    assert (items["i3"].events, items["i3"].model_version) == (3, "two")
    older = read_recommendations(spark, config, version="one").collect()
    assert {(row.model_version, row.as_of, len(row["items"])) for row in older} == {("one", D1, SHOWN)}

    assert rollback(tables, config.name, "two is odd") == Published(model_version="one", as_of=D1)
    assert {row.model_version for row in read_recommendations(spark, config).select("model_version").collect()} == {
        "one"
    }
    back = tables.read("published").orderBy("switched_at").collect()[-1]
    assert (back.outputs, back.reason) == (list(BOTH), f"rollback of two at {D2}: two is odd")


def test_a_version_that_lacks_rows_of_one_output_is_not_published_nor_gone_back_to(
    tables: Tables, config: Any, first: None
) -> None:
    recommend(tables, "two", D2, lists())
    with pytest.raises(TableError, match=f"no item_embeddings of two at {D2} to publish; available: .'one at {D1}'"):
        publish(tables, config, "two", D2, "monthly")
    embed_items(tables, "two", D2, MOVED)
    publish(tables, config, "two", D2, "monthly")
    tables.replace(tables.read("item_embeddings").limit(0), "item_embeddings", "model_version = 'one'")
    with pytest.raises(TableError, match=f"no item_embeddings of one at {D1}"):
        rollback(tables, config.name, "two is odd")
    assert published(tables, config.name) == Published(model_version="two", as_of=D2)


def test_rows_of_an_output_that_the_published_version_does_not_write_have_nothing_to_pass(
    tables: Tables, config: Any
) -> None:
    add_row(tables, "old", outputs=["recommendations"])
    add_row(tables, "new", outputs=list(BOTH))
    recommend(tables, "old", D1, lists())
    publish(tables, config, "old", D1, "first")
    score(tables, "new", D2, lists(), X)
    done = publish(tables, config, "new", D2, "now with vectors")
    assert done.rows == {"recommendations": USERS, "item_embeddings": ITEMS}
    assert "norm ratio" not in {outcome.gate for outcome in done.outcomes}


def test_published_recommendations_are_replaced_only_by_such_as_pass(tables: Tables, config: Any, first: None) -> None:
    recommend(tables, "again", D1, lists(shift=9))
    rows = RECOMMENDATIONS.select(tables, "again", D1)
    with pytest.raises(GateError, match=r"share of a user's items that stay 0\.000"):
        check_replacement(tables, config, RECOMMENDATIONS, rows, "one", D1)
    check_replacement(tables, config, RECOMMENDATIONS, rows, "one", D2)
    check_replacement(tables, config, RECOMMENDATIONS, RECOMMENDATIONS.select(tables, "one", D1), "one", D1)
    moved = ITEM_EMBEDDINGS.select(tables, "one", D1)
    check_replacement(tables, config, ITEM_EMBEDDINGS, moved, "one", D1)


def test_no_output_is_replaced_before_all_have_passed_their_gates(
    tables: Tables, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = untrained_version(tables.folder("artefacts"))
    version = Path(path).name
    add_row(tables, version, kind="recommender", outputs=list(BOTH))
    made = {"recommendations": "new", "item_embeddings": "new"}

    def scored(_job: Any, output: Any, *_rest: Any) -> Any:
        return output.select(tables, made[output.name], D2).drop("model_version", "as_of")

    def unpack_both(files: Any) -> Any:
        loaded = unpack(files)
        return replace(loaded, card=replace(loaded.card, outputs=BOTH))

    def shown(output: str) -> list[Any]:
        rows = tables.read(output).where(f"model_version = '{version}' AND as_of = DATE '{D1}'")
        return sorted(map(str, rows.drop("model_version", "as_of").collect()))

    monkeypatch.setattr(scoring, "unpack", unpack_both)
    monkeypatch.setattr(scoring, "_scored", scored)
    monkeypatch.setattr(scoring, "check_fit", lambda *_: None)
    monkeypatch.setattr(scoring, "_check_rows", lambda *_: None)
    for name, x in (("new", X), ("moved", MOVED), ("doubled", X * 2)):
        score(tables, name, D2, lists(shift=name != "new"), x)
    snapshot = SimpleNamespace(as_of=D1, path="aggregates/1", lineage="events x version 1", rows=USERS)

    def rescore() -> None:
        scoring.score_snapshot(tables, config, cast(Snapshot, snapshot), path, uuid4().hex)

    rescore()
    publish(tables, config, version, D1, "first")
    before = {output: shown(output) for output in BOTH}
    # The recommendations would pass, and the items' vectors do not.
    made.update(recommendations="moved", item_embeddings="doubled")
    with pytest.raises(GateError, match="norm ratio"):
        rescore()
    assert {output: shown(output) for output in BOTH} == before
    made.update(item_embeddings="moved")
    rescore()
    assert all(shown(output) != before[output] for output in BOTH)
    assert {len(shown(output)) for output in BOTH} == {USERS, ITEMS}


def test_the_reason_of_a_switch_does_not_pass_for_that_of_a_rollback(tables: Tables, config: Any, first: None) -> None:
    with pytest.raises(ConfigError, match=r"'rollback of \.\.\.' is written by --rollback alone"):
        publish(tables, config, "one", D1, "rollback of the new layout")


def test_what_is_not_there_is_said_with_what_is(tables: Tables, config: Any) -> None:
    spark = tables.spark
    for read in (read_recommendations, read_item_embeddings):
        with pytest.raises(TableError, match="nothing is published for pipeline 'test'"):
            read(spark, config)
    recommend(tables, "one", D1, lists())
    with pytest.raises(TableError, match=rf"no recommendations of one at {D3}; available: \['one at {D1}'\]"):
        read_recommendations(spark, config, "one", D3)
    with pytest.raises(TableError, match="item_embeddings` does not exist"):
        read_item_embeddings(spark, config, "one", D1)


def test_a_version_without_a_row_in_models_and_means_have_embeddings_alone(tables: Tables) -> None:
    assert outputs_of(tables, "one") == [EMBEDDINGS]
    add_row(tables, "one", outputs=list(BOTH))
    assert outputs_of(tables, "gone") == outputs_of(tables, "one-mean3") == [EMBEDDINGS]
