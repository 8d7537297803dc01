"""Tables and logs in folders with any name: from the log to published embeddings, as in a plain folder."""

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gur_spark import read_embeddings
from gur_spark.errors import TableError
from gur_spark.events.ingest import ingest
from gur_spark.events.vocabulary import fit_vocabulary
from gur_spark.features.declare.manifest import Manifest
from gur_spark.snapshots.aggregation import aggregate_snapshot
from gur_spark.snapshots.sequences import sequence_snapshots
from gur_spark.tables.open import open_tables
from gur_spark.tables.paths import check_root
from tests.test_stream import publish_untrained

AS_OF = date(2024, 7, 1)


@pytest.mark.any_engine
def test_a_pipeline_works_in_a_folder_of_an_odd_name(spark: Any, make_config: Any, tmp_path: Path) -> None:
    walk("My données' #50%", spark, make_config, tmp_path)


@pytest.mark.slow
def test_on_spark_the_name_may_also_hold_characters_of_patterns(spark: Any, make_config: Any, tmp_path: Path) -> None:
    walk("My données' #50% [x] {y} %41", spark, make_config, tmp_path)


def walk(name: str, spark: Any, make_config: Any, tmp_path: Path) -> None:
    """Go from a log to published embeddings in folders of this name."""
    landed = tmp_path / f"in {name} [x] {{y}} %41"
    landed.mkdir()
    lines = [f"{user},2024-06-{day:02d}T10:00:00Z,a,1.5" for user in range(5) for day in range(1, 20, user + 1)]
    (landed / "2024-06-20.csv").write_text("\n".join(["user,time,mcc,amount", *lines]))
    listed = tmp_path / f"users {name}.parquet"
    pq.write_table(pa.table({"user_id": [0, 77]}), listed)
    config = make_config(
        {
            "tables": {"root": str(tmp_path / name)},
            "source": {"path": str(landed)},
            "vocabulary": {"min_count": 1},
            "aggregates": {"users": str(listed)},
            "model": {"latent_dim": 4},
            "dedupe": {"policy": "exact"},
        }
    )
    tables = open_tables(spark, config.tables)
    for again in (False, True):
        assert ingest(tables, config, f"run{again}", everything=True).counts["accepted"] == len(lines)
    fit_vocabulary(tables, config)
    assert sequence_snapshots(tables, config, [AS_OF], "sequences").snapshots[0].rows == 5
    made = aggregate_snapshot(tables, config, AS_OF, "aggregates")
    assert isinstance(made.manifest(), Manifest)
    publish_untrained(tables, config, made)
    rows = read_embeddings(spark, config).select("user_id", "events").collect()
    assert {row.user_id: row.events for row in rows} == {0: 19, 1: 10, 2: 7, 3: 5, 4: 4, 77: 0}
    # The same rows as a log of their own: a table of Delta in the folder.
    source = {"path": tables.folder("events"), "format": "delta", "layout": "bulk"}
    fields = {
        "user_id": {"column": "user_id", "type": "long"},
        "event_time": {"column": "event_time", "format": "iso8601"},
        "categorical": [{"name": "mcc", "column": "mcc"}],
        "numeric": [{"name": "amount", "column": "amount", "step": 1}],
    }
    other = make_config({"tables": {"root": str(tmp_path / f"{name} 2")}, "source": source, "fields": fields})
    assert ingest(open_tables(spark, other.tables), other, "delta").counts["accepted"] == len(lines)


@pytest.mark.parametrize(("name", "odd"), [("a[x]b", r"'\[', '\]'"), ("50%41", "'%41'"), ("a*", r"'\*'")])
def test_on_sail_a_folder_that_would_be_another_one_is_refused(name: str, odd: str) -> None:
    with pytest.raises(TableError, match=rf"tables.root '/data/.*' has {odd} in its path"):
        check_root(f"/data/{name}")
    check_root("/data/My données' #50%")
