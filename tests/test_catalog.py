"""Tables by name: the jobs over a catalog's schema instead of folders below the root."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gur_spark.config.file import load_config
from gur_spark.tables.open import open_tables
from gur_spark.tables.runs import record
from jobs import aggregate, ingest, vocabulary
from jobs.aggregate import options


@pytest.fixture
def schema(spark: Any, tmp_path: Path) -> Iterator[str]:
    name = "named_tables"
    spark.sql(f"CREATE DATABASE {name} LOCATION '{tmp_path / 'warehouse'}'")
    yield name
    spark.sql(f"DROP DATABASE {name} CASCADE")


@pytest.mark.slow
def test_the_jobs_write_and_read_tables_by_name(spark: Any, make_config: Any, schema: str, tmp_path: Path) -> None:
    landed = tmp_path / "landed"
    landed.mkdir()
    for day in ("2024-06-01", "2024-06-02"):
        (landed / f"{day}.csv").write_text(f"user,time,mcc,amount\n1,{day},a,1\n2,{day},b,2\nx,{day},c,3\n")
    catalog = {"catalog": "spark_catalog", "schema": schema}
    make_config(
        {"tables": catalog, "source": {"path": str(landed), "max_bad_share": 1}, "vocabulary": {"min_count": 1}}
    )
    config = load_config(tmp_path / "pipeline.yaml")
    tables = open_tables(spark, config.tables)
    parser = ArgumentParser()
    options(parser)
    for _ in range(2):
        for job, args in (
            (ingest, Namespace(landing=[], all=False, log=[])),
            (vocabulary, Namespace(before=None)),
            (aggregate, parser.parse_args(["--as-of", "2024-06-03"])),
        ):
            with record(tables, job.__name__, {}) as run:
                job.stage(tables, config, args, run)
    found = {row[0] for row in spark.sql(f"SHOW TABLES IN {schema}").select("tableName").collect()}
    assert found == {"events", "quarantine", "vocabulary", "snapshots", "runs"}
    assert tables.read("events").count() == 4
    [snapshot] = tables.read("snapshots").collect()
    assert snapshot.rows == 2
    assert sorted(path.name for path in Path(tables.root).iterdir()) == ["_staging", "aggregates"]
