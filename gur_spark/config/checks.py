"""Checks across the sections of a configuration: each takes the sections it compares, and raises ``ValueError``."""

from collections.abc import Collection, Mapping
from datetime import date

from gur_spark.config.columns import categories, numbers
from gur_spark.config.evaluation import Evaluation, Volume
from gur_spark.config.gates import Gates
from gur_spark.config.logs import AnyLog, Log
from gur_spark.config.session import Spark
from gur_spark.config.snapshots import Interactions, Sequences, Vocabulary
from gur_spark.config.tables import Tables
from gur_spark.config.training import Scoring
from gur_spark.models.kind import Capability


def check_engine(engine: str, spark: Spark, tables: Tables, logs: Mapping[str, AnyLog]) -> None:
    """Check that the engine can be reached, and can read and write these logs and tables."""
    if engine == "connect" and not spark.remote:
        raise ValueError("engine 'connect' needs spark.remote")
    if engine == "sail" and (tables.catalog or "table" in [log.source.format for log in logs.values()]):
        raise ValueError("engine 'sail' knows folders only: no tables.catalog, no source.format 'table'")


def check_gates(gates: Gates, evaluation: Evaluation) -> None:
    """Check that the gates' task is a task or label with classes."""
    tasks = [t.name for t in (*evaluation.tasks, *evaluation.labels) if not isinstance(t, Volume)]
    if gates.task is not None and gates.task not in tasks:
        raise ValueError(f"gates.task: no task '{gates.task}'; available: {tasks}")


def check_judged_dates(evaluation: Evaluation, scoring: Scoring, cutoff: date | None) -> None:
    """Check that the judged dates are scored, and that training sees none of their answers."""
    for judged in evaluation.as_of:
        if cutoff and cutoff > judged:
            raise ValueError(
                f"training.cutoff {cutoff} is after evaluation.as_of {judged}: the model would be judged by "
                "events of its training"
            )
        if scoring.as_of and judged not in scoring.as_of:
            raise ValueError(f"evaluation.as_of {judged} is not among scoring.as_of: {list(map(str, scoring.as_of))}")


def check_tasks(evaluation: Evaluation, logs: Mapping[str, Log]) -> None:
    """Check that every task is about a field of an event log."""
    events = [log for log in logs.values() if log.kind == "events"]
    try:
        evaluation.check_fields(categories(events), numbers(events))
    except ValueError as error:
        raise ValueError(f"evaluation.tasks: {error}") from error


def check_vocabulary(vocabulary: Vocabulary, logs: Mapping[str, Log]) -> None:
    """Whether every field with limits of its own is a category of a log."""
    try:
        vocabulary.check_fields(categories(logs.values()))
    except ValueError as error:
        raise ValueError(f"vocabulary.{error}") from error


def check_forms(sequences: Sequences, interactions: Interactions | None, logs: Mapping[str, Log]) -> None:
    """Whether sequences and interactions are made of fields of event logs."""
    events = [log for log in logs.values() if log.kind == "events"]
    try:
        sequences.check_fields([*categories(events), *numbers(events)])
    except ValueError as error:
        raise ValueError(f"sequences.{error}") from error
    try:
        if interactions:
            interactions.check_field(categories(events))
    except ValueError as error:
        raise ValueError(f"interactions.{error}") from error


def check_capabilities(scoring: Scoring, kind: str, can: Collection[Capability]) -> None:
    """Check that the kind can do what scoring asks of it."""
    asked = (
        (bool(scoring.in_space_of), "in_space_of", "[]", Capability.MAPPING),
        (scoring.smoothing > 1, "smoothing", "1", Capability.SMOOTHING),
        (scoring.changed_only, "changed_only", "false", Capability.COPYING),
    )
    for is_asked, key, off, capability in asked:
        if is_asked and capability not in can:
            raise ValueError(
                f"scoring.{key} needs the capability '{capability}'; kind '{kind}' has {sorted(map(str, can))}; "
                f"set scoring.{key}: {off} in this file, even if the file that it extends sets it"
            )
