"""The vocabulary against a plain-Python oracle, and the ids that a refit never changes."""

from collections import Counter
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from gur_spark import schema
from gur_spark.errors import ConfigError, TableError
from gur_spark.events.vocabulary import Vocabulary, encode, fit_vocabulary, read_vocabulary
from tests.test_snapshots import write

pytestmark = pytest.mark.both_engines

DAY = datetime(2024, 1, 1, tzinfo=UTC)
EVENTS = schema.events_schema("long", ["mcc"], ["amount"])


def write_events(tables: Any, values: list[str | None], time: datetime = DAY) -> None:
    rows = [(1, time, time.date(), value, 1) for value in values]
    write(tables, rows)


def fit(tables: Any, config: Any, before: date | None = None) -> Vocabulary:
    return fit_vocabulary(tables, config, before)


def ids(vocabulary: Vocabulary) -> dict[str | None, int]:
    return {row["value"]: row["id"] for row in vocabulary.frame.collect()}


def oracle(
    values: list[str | None], known: dict[str | None, int], min_count: int, max_size: int
) -> dict[str | None, int]:
    """Number the values one by one."""
    counts = Counter(value for value in values if value is not None)
    made = {None: 2, **known}
    for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if value not in made and count >= min_count and len(made) - 1 < max_size:
            made[value] = max(made.values()) + 1
    return made


def test_ids_follow_count_then_value_and_rare_values_have_none(tables: Any, make_config: Any) -> None:
    write_events(tables, ["b", "a", "a", "b", "c", None, "é", "é", "é"])
    vocabulary = fit(tables, make_config())
    assert ids(vocabulary) == {None: 2, "é": 3, "a": 4, "b": 5}
    assert (vocabulary.version, vocabulary.sizes) == (1, {"mcc": 6})
    stored = tables.read("vocabulary").select("value", "id", "count").collect()
    assert {row["id"]: row["count"] for row in stored} == {2: 1, 3: 3, 4: 2, 5: 2}


@pytest.mark.any_engine
def test_refits_keep_every_id_append_new_values_and_never_reuse(tables: Any, make_config: Any) -> None:
    config = make_config({"vocabulary": {"min_count": 1, "max_size": 4}})
    known: dict[str | None, int] = {}
    for version, values in enumerate([["b", "a", "b"], ["z", "z", "z", "a", "y"], ["new", "x"], []], start=1):
        write_events(tables, values)
        vocabulary = fit(tables, config)
        known = oracle(values, known, 1, 4)
        assert ids(vocabulary) == known
        # The third and the fourth fit find the vocabulary full: nothing changes, so no new version.
        assert vocabulary.version == min(version, 2)
    assert ids(read_vocabulary(tables, 1)) == {None: 2, "b": 3, "a": 4}


@pytest.mark.any_engine
def test_a_smaller_max_size_keeps_the_known_ids(tables: Any, make_config: Any) -> None:
    write_events(tables, ["a", "b", "b"])
    before = fit(tables, make_config({"vocabulary": {"min_count": 1}}))
    write_events(tables, ["c", "c", "c"])
    after = fit(tables, make_config({"vocabulary": {"min_count": 1, "max_size": 1}}))
    assert ids(after) == ids(before) == {None: 2, "b": 3, "a": 4}


@pytest.mark.any_engine
def test_a_field_has_limits_of_its_own(tables: Any, make_config: Any) -> None:
    mcc, shop = ["a", "a", "b", "b", "b", "c"], ["x", "x", "y", "y", "y", "z"]
    rows = [(1, DAY, DAY.date(), *values, 1) for values in zip(mcc, shop, strict=True)]
    frame = tables.spark.createDataFrame(rows, schema.events_schema("long", ["mcc", "shop"], ["amount"]))
    tables.create("events", schema.events_schema("long", ["mcc", "shop"], ["amount"]))
    tables.append(frame, "events")
    categorical = [{"name": name, "column": name} for name in ("mcc", "shop")]

    def fitted(limits: dict[str, Any]) -> dict[str, dict[str | None, int]]:
        config = make_config({"fields": {"categorical": categorical}, "vocabulary": limits})
        rows = fit(tables, config).frame.where("value IS NOT NULL").collect()
        return {field: {r["value"]: r["id"] for r in rows if r["field"] == field} for field in ("mcc", "shop")}

    assert fitted({"min_count": 3, "max_size": 5, "fields": {"shop": {"min_count": 2, "max_size": 1}}}) == {
        "mcc": {"b": 3},
        "shop": {"y": 3},
    }
    # A limit that is not given is that of all fields.
    assert fitted({"min_count": 1, "max_size": 2, "fields": {"shop": {"max_size": 3}}}) == {
        "mcc": {"b": 3, "a": 4},
        "shop": {"y": 3, "x": 4, "z": 5},
    }


def test_limits_of_an_unknown_field_are_refused_with_the_nearest_name(make_config: Any) -> None:
    with pytest.raises(ConfigError, match=r"vocabulary\.fields\.mc: no category 'mc'; .*did you mean 'mcc'"):
        make_config({"vocabulary": {"fields": {"mc": {"max_size": 5}}}})
    with pytest.raises(
        ConfigError, match=r"vocabulary\.fields\.mcc\.max_sizes: unknown key; .*did you mean 'max_size'"
    ):
        make_config({"vocabulary": {"fields": {"mcc": {"max_sizes": 5}}}})


@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_encode_is_a_look_up_for_any_text(spark: Any, data: DataObject) -> None:
    text = st.none() | st.text(st.characters(codec="utf-8"), max_size=3)
    known = data.draw(st.lists(text, unique=True, max_size=5))
    values = data.draw(st.lists(text, min_size=1, max_size=20))
    mapping = {value: number for number, value in enumerate([v for v in known if v is not None], start=3)}
    frame = spark.createDataFrame(
        [("mcc", None, 2), *(("mcc", value, number) for value, number in mapping.items())],
        "field STRING, value STRING, id INT",
    )
    vocabulary = Vocabulary(version=1, hash="h", sizes={"mcc": len(mapping) + 3}, frame=frame)
    events = spark.createDataFrame([(n, value) for n, value in enumerate(values)], "user_id BIGINT, mcc STRING")
    encoded = encode(events, vocabulary, ["mcc"])
    assert encoded.schema.simpleString() == "struct<user_id:bigint,mcc:int>"
    expected = [2 if value is None else mapping.get(value, 1) for value in values]
    assert [row["mcc"] for row in encoded.orderBy("user_id").collect()] == expected


@pytest.mark.any_engine
def test_a_vocabulary_fitted_before_a_date_ignores_later_events(tables: Any, make_config: Any) -> None:
    config = make_config({"vocabulary": {"min_count": 1}})
    write_events(tables, ["a"])
    later = (1, datetime(2024, 1, 2, tzinfo=UTC), date(2024, 1, 2), "b", 1)
    tables.append(tables.spark.createDataFrame([later], EVENTS), "events")
    assert ids(fit(tables, config, before=date(2024, 1, 2))) == {None: 2, "a": 3}


def test_a_pipeline_without_categories_has_the_empty_version_zero(tables: Any, make_config: Any) -> None:
    write_events(tables, ["a"])
    config = make_config()
    bare = config.model_copy(update={"fields": config.fields.model_copy(update={"categorical": []})})
    vocabulary = fit(tables, bare)
    assert (vocabulary.version, vocabulary.sizes, vocabulary.frame.collect()) == (0, {}, [])


def test_missing_tables_versions_and_fields_are_named(tables: Any, make_config: Any, spark: Any) -> None:
    with pytest.raises(TableError, match="run the ingest job first"):
        fit(tables, make_config())
    write_events(tables, ["a", "a"])
    vocabulary = fit(tables, make_config())
    with pytest.raises(TableError, match=r"no version 9; available: \[1\]"):
        read_vocabulary(tables, 9)
    with pytest.raises(TableError, match=r"no field 'shop'; available: \['mcc'\]"):
        encode(tables.read("events"), vocabulary, ["shop"])
