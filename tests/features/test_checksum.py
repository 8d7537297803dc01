"""The checksum depends on every value, its column and its place, and not on order; checksums of parts add up."""

from datetime import date
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gur_spark.features.checksum import checksum

SCHEMA = pa.schema(
    {
        "user": pa.int64(),
        "day": pa.date32(),
        "x": pa.float64(),
        "ids": pa.list_(pa.int32()),
        "counts": pa.list_(pa.int32()),
    }
)
lists = st.lists(st.integers(0, 3), max_size=3)
numbers = st.one_of(st.none(), st.sampled_from([0.0, 1.0, -1.5, 1e300]))
days = st.sampled_from([date(2024, 7, 1), date(2024, 7, 2)])
tables = st.lists(st.tuples(st.integers(-2, 2), days, numbers, lists, lists), max_size=5)


def of(rows: Any) -> int:
    return checksum(to_table(rows))


def to_table(rows: Any) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema=SCHEMA)


@given(tables, tables)
@settings(deadline=None)
def test_two_tables_have_the_same_checksum_if_and_only_if_they_have_the_same_rows(a: Any, b: Any) -> None:
    assert (of(a) == of(b)) == (sorted(map(str, a)) == sorted(map(str, b)))


@settings(deadline=None)
@given(tables, tables, st.randoms(use_true_random=False))
def test_order_and_files_do_not_matter(a: Any, b: Any, random: Any) -> None:
    rows = [*a, *b]
    random.shuffle(rows)
    assert of(rows) == (of(a) + of(b)) % 2**64
    # The lists of a slice do not begin at the first value.
    assert checksum(to_table([*a, *b]).slice(len(a))) == of(b)


ROW = (1, date(2024, 7, 1), 2.0, [1, 2], [3])


@pytest.mark.parametrize(
    "other",
    [
        (2, *ROW[1:]),
        (1, date(2024, 7, 2), *ROW[2:]),
        (*ROW[:2], None, *ROW[3:]),
        (*ROW[:2], 0.0, *ROW[3:]),
        (*ROW[:3], [2, 1], [3]),
        (*ROW[:3], [1, 2, 0], [3]),
        (*ROW[:3], [1], [2, 3]),
        (*ROW[:3], [3], [1, 2]),
    ],
)
def test_every_value_counts_with_its_column_and_its_place(other: Any) -> None:
    assert of([ROW]) != of([other])
    assert of([ROW, ROW]) != of([ROW])


WHOLE = pa.schema({"mode": pa.int64(), "sums": pa.list_(pa.float64())})
sums = st.lists(st.one_of(st.none(), st.sampled_from([0.0, 1.5])), max_size=2)
declared = st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 2)), sums), max_size=4)


@given(declared, declared)
@settings(deadline=None)
def test_nulls_of_whole_numbers_and_of_lists_count_in_any_part(a: Any, b: Any) -> None:
    """Values are hashed alike in a part with nulls and in a part without."""

    def hashed(rows: Any) -> int:
        return checksum(pa.Table.from_pylist([dict(zip(WHOLE.names, r, strict=True)) for r in rows], schema=WHOLE))

    assert hashed([*a, *b]) == (hashed(a) + hashed(b)) % 2**64
    assert (hashed(a) == hashed(b)) == (sorted(map(str, a)) == sorted(map(str, b)))


def test_text_counts() -> None:
    a, b = (checksum(pa.table({"user_id": [name]})) for name in ("ann", "anna"))
    assert a != b
    # The checksum is stored: the same rows must give it in every version of the project.
    assert f"{of([ROW]):016x}" == "3b5e30947c768ca5"
