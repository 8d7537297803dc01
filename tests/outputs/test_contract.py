"""The contract of each output: its columns, and its broken rows, by the worker's check and by SQL alike."""

import math
from collections.abc import Callable
from datetime import date
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from gur_spark.errors import ModelError, TableError
from gur_spark.outputs.catalogue import OUTPUTS, find_output
from gur_spark.outputs.embeddings import EMBEDDINGS, check_widths
from gur_spark.outputs.output import Output
from gur_spark.outputs.recommendations import ITEM_EMBEDDINGS, RECOMMENDATIONS
from gur_spark.tables.delta import Tables

AS_OF = date(2024, 6, 1)
NAN, INF = math.nan, math.inf

ITEMS = pa.list_(pa.struct([("item", pa.string()), ("score", pa.float32()), ("propensity", pa.float32())]))
VECTOR = pa.list_(pa.float32())


@pytest.mark.any_engine
def test_the_outputs_are_found_by_name_and_a_row_is_of_one_user_or_item() -> None:
    assert list(OUTPUTS) == ["embeddings", "recommendations", "item_embeddings"]
    assert [find_output(name).key for name in OUTPUTS] == [
        ("user_id", "as_of", "model_version"),
        ("user_id", "as_of", "model_version"),
        ("item", "as_of", "model_version"),
    ]


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("output", "user_id_type", "scored"),
    [
        (EMBEDDINGS, "long", "user_id BIGINT, embedding ARRAY<FLOAT>, events BIGINT"),
        (EMBEDDINGS, "string", "user_id STRING, embedding ARRAY<FLOAT>, events BIGINT"),
        (
            RECOMMENDATIONS,
            "long",
            "user_id BIGINT, items ARRAY<STRUCT<item: STRING, score: FLOAT, propensity: FLOAT>>",
        ),
        (ITEM_EMBEDDINGS, "long", "item STRING, embedding ARRAY<FLOAT>, events BIGINT"),
    ],
)
def test_a_scorer_gives_the_tables_columns_without_those_of_the_run(
    output: Output, user_id_type: str, scored: str
) -> None:
    assert output.scored_schema(user_id_type) == scored


@pytest.mark.any_engine
def test_rows_get_the_runs_columns_in_the_order_of_the_table(tables: Tables) -> None:
    for output, row in (
        (EMBEDDINGS, (7, [1.0], 3)),
        (RECOMMENDATIONS, (7, [("a", 1.0, None)])),
        (ITEM_EMBEDDINGS, ("a", [1.0], 3)),
    ):
        given = tables.spark.createDataFrame([row], output.scored_schema("long"))
        output.create(tables, "long")
        made = output.keyed(given, "v1", AS_OF, "long")
        assert made.columns == tables.read(output.name).columns
        tables.append(made, output.name)
        found = output.select(tables, "v1", AS_OF).collect()
        assert [(r[output.subject], r.as_of, r.model_version) for r in found] == [(row[0], AS_OF, "v1")]
        assert output.dates(tables, "v1") == [AS_OF]
        assert f"available: ['v1 at {AS_OF}']" in output.missing(tables, "v1", None)


def one(item: str | None = "a", score: float | None = 1.0, propensity: float | None = None) -> dict[str, Any]:
    return {"item": item, "score": score, "propensity": propensity}


LISTS: list[list[dict[str, Any] | None] | None] = [
    [one()],
    [one("a", 2.0), one("b", 2.0), one("c", -1.0)],
    [one("a", 2.0, 1.0), one("b", 1.0, 0.25), one("c", 1.0, None)],
    [one("", 0.0)],
    None,
    [],
    [None],
    [one("a"), None],
    [one(None)],
    [one("a", 2.0), one(None, 1.0)],
    [one("a", 2.0), one("a", 1.0)],
    [one("a", 3.0), one("b", 2.0), one("a", 1.0)],
    [one(None, 3.0), one(None, 2.0)],
    [one("a", 1.0), one("b", 2.0)],
    [one("a", 3.0), one("b", 1.0), one("c", 2.0)],
    [one("a", None)],
    [one("a", 3.0), one("b", None), one("c", 1.0)],
    [one("a", NAN)],
    [one("a", INF)],
    [one("a", 1.0), one("b", -INF)],
    [one("a", 1.0, 0.0)],
    [one("a", 1.0, -0.5)],
    [one("a", 1.0, 1.5)],
    [one("a", 1.0, NAN)],
    [one("a", 1.0, INF)],
    [one("a", 2.0, 0.5), one("b", 1.0, 0.0)],
]


def is_broken_list(items: list[dict[str, Any] | None] | None) -> bool:
    """The rule of ``recommendations``, in plain Python."""
    if not items or any(entry is None for entry in items):
        return True
    entries = [entry for entry in items if entry is not None]
    names, scores = [entry["item"] for entry in entries], [entry["score"] for entry in entries]
    if None in names or len(set(names)) < len(names):
        return True
    if any(score is None or not math.isfinite(score) for score in scores):
        return True
    shares = [entry["propensity"] for entry in entries if entry["propensity"] is not None]
    return sorted(scores, reverse=True) != scores or not all(0 < share <= 1 for share in shares)


VECTORS: list[list[float | None] | None] = [
    [1.0, -2.5],
    [0.0, 0.0],
    None,
    [],
    [NAN, 1.0],
    [1.0, INF],
    [-INF, 1.0],
    [1.0, None],
]


def is_broken_vector(vector: list[float | None] | None) -> bool:
    """The rule of ``embeddings`` and ``item_embeddings``, in plain Python."""
    return not vector or any(number is None or not math.isfinite(number) for number in vector)


Case = tuple[Output, str, list[Any], pa.DataType, Callable[[Any], bool]]
CASES: list[Case] = [
    (RECOMMENDATIONS, "items", LISTS, ITEMS, is_broken_list),
    (EMBEDDINGS, "embedding", VECTORS, VECTOR, is_broken_vector),
    (ITEM_EMBEDDINGS, "embedding", VECTORS, VECTOR, is_broken_vector),
]


def batch(output: Output, column: str, values: list[Any], kind: pa.DataType) -> pa.RecordBatch:
    """A scorer's rows, the subject of the n-th of which is n."""
    subjects = [str(n) if output.subject == "item" else n for n in range(len(values))]
    return pa.RecordBatch.from_arrays([pa.array(subjects), pa.array(values, kind)], names=[output.subject, column])


@pytest.mark.both_engines
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].name)
def test_the_worker_and_sql_refuse_the_rows_that_the_rule_refuses(tables: Tables, case: Case) -> None:
    output, column, values, kind, is_broken = case
    expected = [n for n, value in enumerate(values) if is_broken(value)]
    assert 0 < len(expected) < len(values)
    types = {"items": "ARRAY<STRUCT<item: STRING, score: FLOAT, propensity: FLOAT>>", "embedding": "ARRAY<FLOAT>"}
    rows = tables.spark.createDataFrame(list(enumerate(map(as_rows, values))), f"n INT, {column} {types[column]}")
    assert sorted(row.n for row in rows.where(F.coalesce(output.broken(), F.lit(False))).collect()) == expected
    refused = []
    for number in range(len(values)):
        try:
            output.check_batch(batch(output, column, values[number : number + 1], kind), "v1")
        except ModelError:
            refused.append(number)
    assert refused == expected


def as_rows(value: Any) -> Any:
    """Structs as tuples, which is how frames are made of them."""
    if isinstance(value, list):
        return [tuple(entry.values()) if isinstance(entry, dict) else entry for entry in value]
    return value


@pytest.mark.any_engine
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].name)
def test_one_broken_row_among_good_ones_is_named(case: Case) -> None:
    output, column, values, kind, is_broken = case
    good = [value for value in values if not is_broken(value)][:2]
    output.check_batch(batch(output, column, good, kind), "v1")
    output.check_batch(batch(output, column, good, kind).slice(1), "v1")
    output.check_batch(batch(output, column, [], kind), "v1")
    whose = {"user_id": "user 1", "item": "item '1'"}[output.subject]
    for value in values:
        if is_broken(value):
            rows = batch(output, column, [good[0], value, good[1]], kind)
            with pytest.raises(ModelError, match=f"model v1 gives {whose} "):
                output.check_batch(rows, "v1")
            with pytest.raises(ModelError, match=f"model v1 gives {whose} "):
                output.check_batch(rows.slice(1), "v1")


@pytest.mark.any_engine
@pytest.mark.parametrize("output", [EMBEDDINGS, ITEM_EMBEDDINGS], ids=lambda output: output.name)
def test_vectors_of_several_widths_are_refused_on_the_worker_and_before_publishing(
    tables: Tables, output: Output
) -> None:
    rows = batch(output, "embedding", [[1.0, 2.0], [3.0, 4.0], [5.0]], VECTOR)
    output.check_batch(rows.slice(0, 2), "v1")
    with pytest.raises(ModelError, match=r"model v1 gives .* an embedding of fewer than 2 numbers, which others"):
        output.check_batch(rows, "v1")
    output.create(tables, "long")
    subjects = rows[output.subject].to_pylist()
    given = [(s, v, 1) for s, v in zip(subjects, rows["embedding"].to_pylist(), strict=True)]
    for version, some in (("v1", given), ("v2", given[:2])):
        frame = tables.spark.createDataFrame(some, output.scored_schema("long"))
        tables.append(output.keyed(frame, version, AS_OF, "long"), output.name)
    with pytest.raises(TableError, match=f"{output.name} of v1 at {AS_OF} were not published: 2 different widths"):
        check_widths(tables, output, "v1", AS_OF)
    check_widths(tables, output, "v2", AS_OF)


@pytest.mark.any_engine
def test_rows_that_may_be_published_are_counted_and_broken_or_missing_ones_named(tables: Tables) -> None:
    RECOMMENDATIONS.create(tables, "long")
    good, bad = [("a", 2.0, None), ("b", 1.0, 0.5)], [("a", 1.0, None), ("b", 2.0, None)]
    for version, lists in (("v1", [good, good]), ("v2", [good, bad])):
        frame = tables.spark.createDataFrame(list(enumerate(lists)), RECOMMENDATIONS.scored_schema("long"))
        tables.append(RECOMMENDATIONS.keyed(frame, version, AS_OF, "long"), "recommendations")
    assert RECOMMENDATIONS.check(tables, "v1", AS_OF) == 2
    with pytest.raises(TableError, match=f"recommendations of v2 at {AS_OF} were not published: 1 rows are broken"):
        RECOMMENDATIONS.check(tables, "v2", AS_OF)
    with pytest.raises(TableError, match=rf"no recommendations of v3 at {AS_OF} to publish; available: \['v1 at"):
        RECOMMENDATIONS.check(tables, "v3", AS_OF)
