"""Facts on a version for a report: the spaces that it shares, the loss of their consumers, and past gates."""

import json
import logging
from collections.abc import Iterator
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark.config.evaluation import Evaluation
from gur_spark.errors import EvaluationError, ModelError
from gur_spark.evaluate.downstream import consumer_loss_at
from gur_spark.evaluate.report import Decision, SharedSpace
from gur_spark.outputs.gates import GATES_FOUND, GATES_OF
from gur_spark.registry.names import VersionName
from gur_spark.spaces.maps import kept_maps
from gur_spark.tables.delta import Tables

log = logging.getLogger("gur_spark")


def shared_spaces(
    tables: Tables, settings: Evaluation, version: str, as_of: date, task: str | None, label: DataFrame | None
) -> list[SharedSpace]:
    """Find the older versions with consumers that can read this version, or its means: by alignment, or by a map.

    Args:
        task, label: the task that measures the consumers' loss at this date, and its ``user_id, label``, classes as
            text.
    """
    found = []
    for old, how, residual, users in _ways(tables, VersionName.parse(version).base):
        lost = None
        if task is not None and label is not None:
            claimed = version if how == "aligned" else str(VersionName.parse(version).mapped_to(old))
            try:
                lost = consumer_loss_at(tables, settings, task, label, as_of, claimed, old)
            except EvaluationError as error:
                log.info("evaluate: what consumers of %s lose is not known: %s", old, error)
        found.append(SharedSpace(old, how, residual, users, task if lost is not None else None, lost))
    return found


def _ways(tables: Tables, version: str) -> Iterator[tuple[str, str, float | None, int | None]]:
    """Yield (older version, how, residual, users of the fit); no residual after several alignments."""
    rows = {row["model_version"]: row for row in tables.read("models", made_by="train").collect()}
    row = rows.get(version)
    if row is None:
        return
    metrics = row["metrics"] or {}
    residual, users = metrics.get("alignment_residual"), metrics.get("alignment_users")
    older = row["aligned_to"]
    while older:
        yield older, "aligned", residual, None if users is None else int(users)
        residual = users = None
        older = rows[older]["aligned_to"] if older in rows else None
    try:
        maps = kept_maps(row["path"])
    except ModelError as error:
        log.warning("evaluate: the maps of %s are not told: %s", version, error)
        return
    for old, found in maps.items():
        yield old, "mapped", found.residual, found.users


def gate_decisions(tables: Tables, version: str) -> list[Decision]:
    """List the gates' decisions on a version each time that it was to be published, in the order of the runs."""
    if not tables.exists("runs"):
        return []
    asked = F.col("outputs")[GATES_OF]
    rows = (
        tables.read("runs").where((F.col("job") == "publish") & asked.startswith(f"{version} at ")).orderBy("started")
    )
    return [
        Decision(row["outputs"][GATES_OF], row["status"] == "succeeded", json.loads(row["outputs"][GATES_FOUND]))
        for row in rows.collect()
    ]
