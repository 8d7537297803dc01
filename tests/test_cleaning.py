"""Cleaning removes files that no table names, and nothing else."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gur_spark.errors import TableError
from gur_spark.events.vocabulary import fit_vocabulary
from gur_spark.snapshots.aggregation import aggregate_snapshot
from gur_spark.snapshots.wanted import find_snapshot
from gur_spark.tables.cleaning import clean
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables
from tests.conftest import config_over
from tests.model_rows import add_row
from tests.test_snapshots import AS_OF, event, log, run_id, write

pytestmark = pytest.mark.any_engine


@pytest.fixture(scope="module")
def made(spark: Any, tmp_path_factory: Any) -> Tables:
    """Tables with one snapshot that was replaced by another, and the litter of killed runs."""
    root = tmp_path_factory.mktemp("clean") / "tables"
    config = config_over(root, vocabulary={"min_count": 1})
    tables = open_tables(spark, config.tables)
    write(tables, log(events=40))
    fit_vocabulary(tables, config)
    aggregate_snapshot(tables, config, AS_OF, run_id())
    write(tables, [*log(events=40), event(1, timedelta(days=1), "a", 1)])
    aggregate_snapshot(tables, config, AS_OF, run_id())
    for litter in ("_staging/run1", "checkpoints/run2", "artefacts/gur-1", "aggregates/2024-07-01/killed"):
        (root / litter / "deep").mkdir(parents=True)
        (root / litter / "deep" / "file").write_text("x")
    return tables


@pytest.fixture
def tables(made: Tables, tmp_path: Path) -> Iterator[Tables]:
    """The tables as they were made, in the place that their rows name; put back after each test."""
    shutil.copytree(made.root, tmp_path / "as_made")
    yield made
    shutil.rmtree(made.root, ignore_errors=True)
    shutil.move(tmp_path / "as_made", made.root)


@pytest.fixture
def root(tables: Tables) -> Path:
    return Path(tables.root)


def kept(root: Path) -> set[str]:
    found = [p for parent in ("_staging", "checkpoints", "artefacts") for p in (root / parent).glob("*")]
    return {str(p.relative_to(root)) for p in [*found, *(root / "aggregates").glob("*/*")]}


def test_folders_that_no_table_names_go_and_the_visible_snapshot_stays(
    root: Path, tables: Tables, make_config: Any
) -> None:
    snapshot = find_snapshot(tables, make_config(), AS_OF)
    later = datetime.now(UTC) + timedelta(hours=1)
    would = clean(tables, later, dry_run=True)
    assert len(kept(root)) == 6
    assert clean(tables, later) == would
    assert len(would) == 5
    assert kept(root) == {str(Path(snapshot.path).relative_to(root))}
    assert tables.spark.read.parquet(snapshot.data).count() == snapshot.rows
    assert clean(tables, later) == []


def test_what_was_written_lately_stays(root: Path, tables: Tables) -> None:
    old = (datetime.now(UTC) - timedelta(days=3)).timestamp()
    for path in sorted((root / "checkpoints").rglob("*"), reverse=True):
        os.utime(path, (old, old))
    removed = clean(tables, datetime.now(UTC) - timedelta(days=2))
    assert removed == [str(root / "checkpoints" / "run2")]


def test_a_replaced_snapshot_that_a_model_was_trained_on_stays(root: Path, tables: Tables) -> None:
    [replaced] = [
        p
        for p in (root / "aggregates" / "2024-07-01").glob("run*")
        if str(p) not in {row.path for row in tables.read("snapshots").collect()}
    ]
    add_row(tables, "gur-1", path=str(root / "artefacts" / "gur-1"), training_snapshots=[str(replaced)])
    clean(tables, datetime.now(UTC) + timedelta(hours=1))
    assert len(kept(root)) == 3
    assert {"artefacts/gur-1", str(replaced.relative_to(root))} < kept(root)


def test_a_root_that_was_moved_is_not_cleaned(root: Path, tables: Tables, tmp_path: Path) -> None:
    moved = root.rename(tmp_path / "moved")
    before = kept(moved)
    with pytest.raises(TableError, match=r"outside .*moved, such as .*: was it moved"):
        clean(replace(tables, root=str(moved)), datetime.now(UTC) + timedelta(hours=1))
    assert kept(moved) == before
