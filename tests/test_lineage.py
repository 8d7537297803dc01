import pytest

from gur_spark.errors import TableError
from gur_spark.tables.lineage import Lineage


@pytest.mark.parametrize(
    ("text", "lineage"),
    [
        ("events a-1 version 3", Lineage("a-1", 3)),
        ("events a-1 version 0, users /data/some users.parquet", Lineage("a-1", 0, "/data/some users.parquet")),
    ],
)
def test_a_lineage_is_read_as_it_is_written(text: str, lineage: Lineage) -> None:
    assert Lineage.parse(text) == lineage
    assert str(lineage) == text


@pytest.mark.parametrize("text", ["", "events", "events a version x", "events a version 3 users u"])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(TableError, match="expected a lineage such as 'events ID version 3'"):
        Lineage.parse(text)
