"""Delta tables by path: a replace touches its predicate's rows or nothing."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from gur_spark.errors import TableError
from gur_spark.schema import QUARANTINE, SNAPSHOTS, column_names
from gur_spark.tables.delta import Tables, check_keys
from gur_spark.tables.runs import Account, Run, kept_on_failure, record

pytestmark = pytest.mark.both_engines

DDL = "user_id BIGINT, day STRING"


def rows(tables: Tables) -> set[tuple[int, str]]:
    return {(row.user_id, row.day) for row in tables.read("t").collect()}


def frame(tables: Tables, *values: tuple[int, str]) -> Any:
    return tables.spark.createDataFrame(list(values), DDL)


def test_a_replace_leaves_all_other_rows(tables: Tables) -> None:
    tables.create("t", DDL)
    tables.append(frame(tables, (1, "mon"), (2, "tue")), "t")
    tables.replace(frame(tables, (3, "tue")), "t", "day = 'tue'")
    tables.replace(frame(tables, (3, "tue")), "t", "day = 'tue'")
    assert rows(tables) == {(1, "mon"), (3, "tue")}


def test_a_replace_without_a_predicate_replaces_all_rows_and_refuses_other_columns(tables: Tables) -> None:
    tables.create("t", DDL)
    tables.append(frame(tables, (1, "mon"), (2, "tue")), "t")
    tables.replace(frame(tables, (3, "wed")), "t", None)
    assert rows(tables) == {(3, "wed")}
    with pytest.raises(TableError, match="the frame does not fit"):
        tables.replace(tables.spark.createDataFrame([(4, "x", 1)], DDL + ", more INT"), "t", None)
    assert rows(tables) == {(3, "wed")}


def test_rows_outside_the_predicate_are_refused_and_nothing_is_written(tables: Tables) -> None:
    tables.create("t", DDL)
    tables.append(frame(tables, (1, "mon")), "t")
    with pytest.raises(TableError, match="day = 'tue'"):
        tables.replace(frame(tables, (3, "tue"), (4, "wed")), "t", "day = 'tue'")
    assert rows(tables) == {(1, "mon")}


def test_a_missing_table_names_the_job_that_makes_it(tables: Tables) -> None:
    with pytest.raises(TableError, match="run the score job first"):
        tables.read("embeddings", made_by="score")


def test_a_table_of_another_version_of_gur_spark_is_refused_and_the_missing_column_is_named(tables: Tables) -> None:
    tables.create("snapshots", SNAPSHOTS.replace("lineage STRING, ", "") + ", more STRING")
    with pytest.raises(TableError, match=r"snapshots.* has no column lineage: another version.* set tables.root"):
        tables.read("snapshots")


def test_a_write_to_a_table_of_another_version_of_gur_spark_names_the_way_out(tables: Tables) -> None:
    tables.create("quarantine", QUARANTINE.replace("source STRING, ", ""))
    rows = tables.spark.createDataFrame([], QUARANTINE)
    with pytest.raises(TableError, match=r"quarantine.* has no column source: another version.* set tables.root"):
        tables.append(rows, "quarantine")
    with pytest.raises(TableError, match=r"quarantine.* has no column source: another version.* set tables.root"):
        tables.replace(rows, "quarantine", "landed_on = DATE '2024-01-01'")


def test_names_in_a_schema_are_those_of_its_columns() -> None:
    assert column_names("a_b INT, metrics MAP<STRING, DOUBLE>, c ARRAY<STRING>") == ["a_b", "metrics", "c"]


def test_double_and_null_keys_are_refused(tables: Tables) -> None:
    assert check_keys(frame(tables, (1, "mon"), (2, "mon")), ["user_id"], "t") == 2
    with pytest.raises(TableError, match="2 rows for 1 different"):
        check_keys(frame(tables, (1, "mon"), (1, "tue")), ["user_id"], "t")
    with pytest.raises(TableError, match="1 rows have no user_id"):
        check_keys(tables.spark.createDataFrame([(None, "mon")], DDL), ["user_id"], "t")


def fail(account: Account) -> None:
    with kept_on_failure(account):
        account.counts["rows"] = 7
        raise ValueError("boom")


def test_a_run_that_fails_leaves_its_row_with_the_error(tables: Tables) -> None:
    with record(tables, "ingest", {"a": "b"}) as run:
        for log in ("main", "web"):
            run.add(Account(inputs={log: "1"}, counts={"rows_read": 3}, outputs={"events": "t"}))
    known = Account(inputs={"snapshot": "a"})
    with pytest.raises(ValueError, match="boom"), record(tables, "train", {}):
        fail(known)
    found = {row.job: row for row in tables.read("runs").collect()}
    assert (found["ingest"].status, found["ingest"].counts, found["ingest"].error) == (
        "succeeded",
        {"rows_read": 6},
        None,
    )
    assert (found["ingest"].inputs, found["ingest"].outputs) == ({"main": "1", "web": "1"}, {"events": "t"})
    # The account at the moment of the failure is kept.
    assert (found["train"].inputs, found["train"].counts) == ({"snapshot": "a"}, {"rows": 7})
    assert found["train"].status == "failed"
    assert found["train"].error.startswith("ValueError: boom")


@pytest.mark.parametrize("predicate", ["day = 'mon'", None])
def test_two_runs_that_replace_the_same_rows_at_once_conflict_and_one_wins(
    predicate: str | None, tables: Tables
) -> None:
    tables.create("t", DDL)
    folder = tables.folder("t")

    def meanwhile(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # While the frame is computed, another program commits.
        write_deltalake(folder, pa.table({"user_id": [7], "day": ["mon"]}), mode="append")
        yield from batches

    slow = frame(tables, (1, "mon")).coalesce(1).mapInArrow(meanwhile, DDL)
    with pytest.raises(TableError, match="another run wrote to it at the same time and won"):
        tables.replace(slow, "t", predicate)
    assert [tuple(row) for row in tables.read("t").collect()] == [(7, "mon")]


def test_a_line_about_a_run_has_each_count_once_and_no_zeros() -> None:
    counts = {"rows_read": 12, "main rows_read": 5, "items rows_read": 7, "filtered": 0, "churn test users": 3}
    run = Run(id="1", job="ingest", parameters={}, counts=counts, seconds=1.25)
    assert run.line() == "ingest: rows_read 12, churn test users 3 (1.2 s)"
