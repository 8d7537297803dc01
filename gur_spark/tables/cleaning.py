"""Removal of folders that no table names, such as those that killed runs left behind."""

import logging
from collections.abc import Iterator
from datetime import datetime

from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.errors import TableError
from gur_spark.models.kind import Form
from gur_spark.tables.delta import Tables

log = logging.getLogger("gur_spark")


def clean(tables: Tables, before: datetime, dry_run: bool = False) -> list[str]:
    """Remove the folders below the root that no table names and that nobody wrote to since ``before``.

    These are staged rows, checkpoints and training pairs of runs that ended; folders of aggregates, sequences and
    interactions that are no snapshot (any more) and that no model was trained on; and artefacts of no model. Running
    jobs write, so ``before`` must be longer ago than a job takes. Pipelines that share a root must share its tables.
    Returns the folders that were removed or, with ``dry_run``, would be removed.

    Raises:
        TableError: a table names a folder outside the root, which may have been moved; nothing was removed.
    """
    found = [folder for folder in _unnamed(tables, before) if _last_written(folder) < before]
    for folder in found:
        log.info("clean: %s %s", "would remove" if dry_run else "removes", folder)
        if not dry_run:
            storage.remove_folder(folder)
    return found


def _unnamed(tables: Tables, before: datetime) -> Iterator[str]:
    replaced = _replaced_since(tables, before)
    named = {_inner(path) for path in _named(tables)}
    root = _inner(tables.root)
    elsewhere = sorted(path for path in named if not path.startswith(f"{root}/"))
    if elsewhere:
        raise TableError(
            f"tables name folders outside {root}, such as {elsewhere[0]}: was it moved? Nothing was removed"
        )
    parents = ("_staging", "checkpoints", "pairs", "artefacts")
    found = [f for parent in parents for f in storage.folders(tables.folder(parent))]
    for form in Form:
        dates = [f for f in storage.folders(tables.folder(form)) if (form, f.rsplit("/", 1)[-1]) not in replaced]
        found += [folder for of_date in dates for folder in storage.folders(of_date)]
    return (folder for folder in found if _inner(folder) not in named)


def _replaced_since(tables: Tables, before: datetime) -> set[tuple[str, str]]:
    """Forms and dates whose snapshot is newer than ``before``. A running training may still read the one before it."""
    if not tables.exists("snapshots"):
        return set()
    newer = tables.read("snapshots").where(F.unix_micros("created") >= int(before.timestamp() * 1_000_000))
    return {(row["form"], row["as_of"].isoformat()) for row in newer.select("form", "as_of").distinct().collect()}


def _inner(path: str) -> str:
    """Path inside its file system, so that each folder has one spelling: ``file:/data`` becomes ``/data``."""
    return storage.open_filesystem(path)[1].rstrip("/")


def _named(tables: Tables) -> set[str]:
    """Folders that a row of ``snapshots`` or ``models`` points to."""
    named: set[str] = set()
    if tables.exists("snapshots"):
        named |= {row[0] for row in tables.read("snapshots").select("path").collect()}
    if tables.exists("models"):
        models = tables.read("models")
        named |= {row[0] for row in models.select("path").collect()}
        # A replaced snapshot stays readable as long as a model was trained on it.
        named |= {row[0] for row in models.select(F.explode("training_snapshots")).collect()}
    return named


def _last_written(folder: str) -> datetime:
    return max(storage.modified(folder))
