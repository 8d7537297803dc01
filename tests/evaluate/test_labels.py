"""Churn is counted as a plain loop over the events would, and label tables are checked."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from gur_spark.config.evaluation import Label, NextCategory, Volume
from gur_spark.errors import EvaluationError
from gur_spark.evaluate import label_tables, labels
from gur_spark.evaluate.label_tables import check_label_files, newest_date, read_label
from gur_spark.snapshots.horizon import events_ahead
from tests.conftest import config_over

pytestmark = pytest.mark.any_engine

AS_OF = date(2024, 6, 1)
MIDNIGHT = datetime(2024, 6, 1, tzinfo=UTC)
EVENTS = "user_id BIGINT, event_time TIMESTAMP, landed_on DATE"
EMBEDDINGS = "user_id BIGINT, embedding ARRAY<FLOAT>, events BIGINT"


def events_of(spark, rows):
    """Events from (user, time), landed on their day."""
    return spark.createDataFrame([(user, time, time.date()) for user, time in rows], EVENTS)


def ahead_of(spark, rows, days):
    return events_ahead(events_of(spark, rows), AS_OF, days, config_over("unused").aggregates.delay_days)


def users_of(spark, users):
    return spark.createDataFrame([(user,) for user in users], "user_id BIGINT")


def collected(frame):
    return {row[0]: row[1] for row in frame.collect()}


def test_churn_is_no_event_from_as_of_midnight_until_the_horizon(spark):
    microsecond = timedelta(microseconds=1)
    rows = [
        (1, MIDNIGHT - microsecond),
        (2, MIDNIGHT),
        (3, MIDNIGHT + timedelta(days=7) - microsecond),
        (4, MIDNIGHT + timedelta(days=7)),
    ]
    found = collected(labels.churn(users_of(spark, [1, 2, 3, 4, 5]), ahead_of(spark, rows, 7)))
    assert found == {1: "churned", 2: "active", 3: "active", 4: "churned", 5: "churned"}


def test_churn_equals_a_plain_loop_and_is_told_for_active_users_alone(spark):
    rng = np.random.default_rng(0)
    drawn = rng.integers((0, -2000), (40, 1500), (120, 2)).tolist()
    rows = [(user, MIDNIGHT + timedelta(hours=hour)) for user, hour in drawn]
    active = list(range(0, 40, 2))
    expected = {}
    for user in active:
        gone = not any(who == user and MIDNIGHT <= time < MIDNIGHT + timedelta(days=28) for who, time in rows)
        expected[user] = "churned" if gone else "active"
    assert set(expected.values()) == {"active", "churned"}
    assert collected(labels.churn(users_of(spark, active), ahead_of(spark, rows, 28))) == expected


def test_volume_is_a_plain_sum_over_the_days_ahead_and_0_for_who_is_silent(spark):
    rows = [(1, 5), (1, -2), (2, 7), (3, None), (9, 4)]
    ahead = spark.createDataFrame(rows, "user_id BIGINT, amount BIGINT")
    users = users_of(spark, [1, 2, 3, 4])
    asked = Volume(kind="volume", name="spent", of="amount")
    assert collected(labels.volume(users, ahead, asked, 0.01)) == pytest.approx({1: 0.03, 2: 0.07, 3: 0.0, 4: 0.0})
    counted = labels.volume(users, ahead, Volume(kind="volume"), 1.0)
    assert collected(counted) == {1: 2, 2: 1, 3: 1, 4: 0}


def test_the_next_category_is_that_of_the_first_event_that_has_one_among_the_most_frequent(spark):
    at = [MIDNIGHT + timedelta(hours=hour) for hour in range(4)]
    rows = [
        *[(1, at[1], "b"), (1, at[1], "a"), (1, at[0], None), (1, at[2], "c")],  # of two at a time the first by name
        *[(2, at[0], "b"), (3, at[3], "a"), (4, at[0], "z"), (5, at[0], None), (8, at[0], "z"), (9, at[0], "z")],
    ]
    ahead = spark.createDataFrame(rows, "user_id BIGINT, event_time TIMESTAMP, mcc STRING")
    asked = NextCategory(kind="next_category", field="mcc", classes=2)
    # Users 8 and 9 are not asked about, so z is rarer than a, and as rare as b, which comes first.
    assert collected(labels.next_category(users_of(spark, range(1, 8)), ahead, asked)) == {1: "a", 2: "b", 3: "a"}


@pytest.fixture
def table(tmp_path):
    """Write a label table as CSV; returns its declaration."""

    def write(text, user_column="client"):
        (tmp_path / "labels.csv").write_text(text)
        return Label(name="persona", path=str(tmp_path / "labels.csv"), user_column=user_column, label_column="persona")

    return write


def test_a_label_table_gives_a_class_per_user_and_leaves_out_blank_ones(spark, table):
    label = table("persona,client\nsaver,1\n spender ,2\n,3\n  ,4\n")
    found = read_label(spark, label, "long")
    assert found.columns == ["user_id", "persona"]
    assert collected(found) == {1: "saver", 2: "spender"}
    assert collected(read_label(spark, label, "string")) == {"1": "saver", "2": "spender"}


def test_a_label_table_may_be_parquet_with_numbers(spark, tmp_path):
    spark.createDataFrame([(7, 1), (8, None)], "u INT, y INT").write.parquet(str(tmp_path / "y"))
    label = Label(name="churn_label", path=str(tmp_path / "y"), format="parquet", user_column="u", label_column="y")
    assert collected(read_label(spark, label, "long")) == {7: "1"}


@pytest.mark.parametrize(
    ("text", "user_column", "message"),
    [
        ("client,persona\n1,a\n2,a\n1,a\n", "client", "label 'persona': user 1 has 2 rows; expected one"),
        ("client,persona\n1,a\nx7,a\n", "client", "label 'persona': expected user ids of type long, got 'x7'"),
        ("client,persona\n1,a\n", "cleint", r"no column 'cleint'; available: .*; did you mean 'client'"),
    ],
)
def test_a_label_table_that_cannot_be_used_is_refused(spark, table, text, user_column, message):
    with pytest.raises(EvaluationError, match=message):
        read_label(spark, table(text, user_column), "long")
    if "type long" not in message:
        with pytest.raises(EvaluationError, match=message.replace("user 1", "user '1'")):
            check_label_files([table(text, user_column)], "long")


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        ({"format": "parquet", "path": "y", "table": "y", "delimiter": ";"}, "'parquet' has no table and no delimiter"),
        ({"format": "delta", "path": "y", "delimiter": ";"}, "'delta' has no delimiter"),
        ({"path": "y", "table": "y"}, "'csv' has no table"),
        ({"format": "table", "table": "y", "path": "y"}, "'table' has no path"),
    ],
)
def test_keys_of_another_format_of_a_label_table_are_refused(given, keys):
    with pytest.raises(ValueError, match=keys):
        Label(name="y", user_column="u", label_column="y", **given)


def test_a_label_table_that_is_not_there_is_refused(spark):
    label = Label(name="persona", path="/nowhere/labels.csv", user_column="client", label_column="persona")
    with pytest.raises(EvaluationError, match=r"label 'persona': /nowhere/labels\.csv does not exist"):
        read_label(spark, label, "long")
    with pytest.raises(EvaluationError, match=r"label 'persona': /nowhere/labels\.csv does not exist"):
        check_label_files([label], "long")


def test_labels_with_a_date_count_at_the_newest_judged_date_that_is_not_after_it(spark, tmp_path):
    rows = "user;day;y\n1;2024-06-01;a\n1;2024-06-20;b\n1;2024-05-31;c\n2;2024-07-01;d\n"
    rows += "3;2024-06-30 23:59:59;e\n4;2024-06-05;\n"
    (tmp_path / "labels.csv").write_text(rows)
    given = {"name": "y", "user_column": "user", "label_column": "y", "date_column": "day"}
    label = Label(path=str(tmp_path / "labels.csv"), delimiter=";", **given)
    check_label_files([label], "long")
    assert collected(read_label(spark, label, "long", AS_OF, date(2024, 7, 1))) == {1: "a", 3: "e"}
    assert collected(read_label(spark, label, "long", date(2024, 7, 1))) == {2: "d"}
    for bad, message in {
        rows + "5;soon;a\n": "label 'y': user 5 has no date YYYY-MM-DD in the column 'day'",
        rows + "2;2024-07-01;a\n": "label 'y': user 2 has 2 rows at 2024-07-01; expected one",
    }.items():
        (tmp_path / "labels.csv").write_text(bad)
        with pytest.raises(EvaluationError, match=message):
            read_label(spark, label, "long", AS_OF)


def test_a_label_table_may_be_a_delta_table_with_times(spark, tmp_path):
    moments = [datetime(2024, 6, 1, 10, tzinfo=UTC), datetime(2024, 5, 31, 23, tzinfo=UTC)]
    write_deltalake(tmp_path / "y", pa.table({"u": ["1", "2"], "y": ["a", "b"], "at": moments}))
    given = {"name": "y", "format": "delta", "user_column": "u", "label_column": "y", "date_column": "at"}
    assert collected(read_label(spark, Label(path=str(tmp_path / "y"), **given), "long", AS_OF)) == {1: "a"}


def test_a_label_file_without_an_answer_or_with_ids_in_floats_is_refused(tmp_path):
    pq.write_table(pa.table({"u": [1.0], "y": ["a"]}), tmp_path / "y.parquet")
    given = {"name": "y", "user_column": "u", "label_column": "y"}
    with pytest.raises(EvaluationError, match="label 'y': u is double, expected long"):
        check_label_files([Label(path=str(tmp_path / "y.parquet"), format="parquet", **given)], "long")
    (tmp_path / "y.csv").write_text("u,y\n1,\n2, \n")
    with pytest.raises(EvaluationError, match=r"label 'y': no row of .*y.csv has a value in 'y'"):
        check_label_files([Label(path=str(tmp_path / "y.csv"), **given)], "long")
    (tmp_path / "y.csv").write_text("")
    with pytest.raises(EvaluationError, match=r"label 'y': .*y.csv cannot be read as csv"):
        check_label_files([Label(path=str(tmp_path / "y.csv"), **given)], "long")


def test_a_positive_class_that_no_row_has_is_refused_before_spark_starts(tmp_path):
    given = {"name": "y", "path": str(tmp_path / "y.csv"), "user_column": "u", "label_column": "y"}
    (tmp_path / "y.csv").write_text("u,y\n1,paid\n2, default\n3,\n")
    check_label_files([Label(**given, positive="default")], "long")
    with pytest.raises(
        EvaluationError, match=r"positive 'defualt': .* \['default', 'paid'\]; did you mean 'default'\?"
    ):
        check_label_files([Label(**given, positive="defualt")], "long")


@pytest.mark.parametrize("name", ["text", "date", "first", "count"])
def test_a_label_may_have_the_name_of_any_column(spark, tmp_path, name):
    (tmp_path / "y.csv").write_text("u,y,day\n1,a,2024-06-02\n1,b,2024-06-01\n")
    given = {"name": name, "user_column": "u", "label_column": "y", "date_column": "day"}
    found = read_label(spark, Label(path=str(tmp_path / "y.csv"), **given), "long", AS_OF)
    assert found.columns == ["user_id", name]
    assert collected(found) == {1: "b"}


DATED = {"name": "y", "user_column": "u", "label_column": "y", "date_column": "day"}


def test_the_date_of_a_text_is_that_in_utc_and_a_shorter_text_is_no_date(spark, tmp_path):
    file = tmp_path / "y.csv"
    late = ["2024-02-29T23:30:00-05:00", "2024-03-01 23:30:00Z", "2024-03-02T01:00:00.5+0200", "2024-03-01 09:30"]
    file.write_text("u,y,day\n" + "".join(f"{n},a,{text}\n" for n, text in enumerate(late)) + "9,b,2024-03-02\n")
    label = Label(path=str(file), **DATED)
    assert collected(read_label(spark, label, "long", date(2024, 3, 1), date(2024, 3, 2))) == dict.fromkeys(
        range(4), "a"
    )
    assert newest_date(spark, label, "long") == date(2024, 3, 2)
    for text in ("2024", "2024-03", "2024-3-1", "2024-02-30", "2024-03-01x"):
        file.write_text(f"u,y,day\n5,a,{text}\n")
        with pytest.raises(EvaluationError, match="label 'y': user 5 has no date YYYY-MM-DD in the column 'day'"):
            read_label(spark, label, "long")


def test_label_files_that_the_engine_reads_pass_the_check_before_it(tmp_path):
    for day in ("2024-03-01", "2024-03-02"):
        (tmp_path / "y" / f"day={day}").mkdir(parents=True)
        pq.write_table(pa.table({"u": [1], "y": ["a"]}), tmp_path / "y" / f"day={day}" / "part.parquet")
    folder = Label(path=str(tmp_path / "y"), format="parquet", **DATED)
    check_label_files([folder], "long")
    given = {"name": "y", "user_column": "u", "label_column": "y"}
    for content in (b"u,y\n1,a,\n", b"u,y\n1,a\n2,b,\n", b"u,y\n1,\xe9\n", b"u,y,\xe9\n1,a,\xe9\n"):
        (tmp_path / "y.csv").write_bytes(content)
        check_label_files([Label(path=str(tmp_path / "y.csv"), **given)], "long")
    check_label_files([Label(path=str(tmp_path / "y.csv"), delimiter="§", **given)], "long")
    (tmp_path / "y.csv").write_bytes(b"u,y\n\xe9,a\n\xe9,a\n")
    with pytest.raises(EvaluationError, match="user '\ufffd' has 2 rows; expected one"):
        check_label_files([Label(path=str(tmp_path / "y.csv"), **given)], "string")


def test_rows_of_large_label_files_are_left_to_the_engine(tmp_path, monkeypatch):
    monkeypatch.setattr(label_tables, "CHECKED_BYTES", 10)
    (tmp_path / "y.csv").write_text("u,y\n1,a\n1,a\n")
    check_label_files([Label(name="y", path=str(tmp_path / "y.csv"), user_column="u", label_column="y")], "long")
    with pytest.raises(EvaluationError, match="no column 'yy'"):
        check_label_files([Label(name="y", path=str(tmp_path / "y.csv"), user_column="u", label_column="yy")], "long")


def test_a_label_table_that_the_engine_cannot_read_is_refused_by_its_name(spark, tmp_path):
    given = {"name": "y", "user_column": "u", "label_column": "y"}
    for label in (Label(format="delta", path=str(tmp_path), **given), Label(format="table", table="nowhere", **given)):
        with pytest.raises(EvaluationError, match=rf"label 'y': .* cannot be read as {label.format}: "):
            read_label(spark, label, "long")


def test_answers_keep_every_user_once_with_null_where_a_label_is_not_known(spark):
    embeddings = spark.createDataFrame([(3, [0.5], 7), (1, [1.5], 0)], EMBEDDINGS)
    label = spark.createDataFrame([(1, "a"), (9, "b")], "user_id BIGINT, persona STRING")
    assert labels.answers(embeddings, [label], 10, seed=0).toArrow().to_pylist() == [
        {"user_id": 1, "embedding": [1.5], "events": 0, "persona": "a"},
        {"user_id": 3, "embedding": [0.5], "events": 7, "persona": None},
    ]
    assert labels.unknown_users(label, embeddings) == 1


def test_a_sample_is_the_same_whatever_the_partitioning_and_another_for_another_seed(spark):
    embeddings = spark.createDataFrame([(user, [0.0], 1) for user in range(50)], EMBEDDINGS)
    first, again, other = (
        [row["user_id"] for row in labels.answers(frame, [], 10, seed).collect()]
        for frame, seed in ((embeddings, 1), (embeddings.repartition(3), 1), (embeddings, 2))
    )
    assert len(set(first)) == 10
    assert first == again
    assert first != other
