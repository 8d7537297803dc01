"""Steps of a pipeline: jobs that run one after the other in one session, each with its own row in ``runs``."""

import json
import logging
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gur_spark import cli, storage
from gur_spark.config.pipeline import Config
from gur_spark.errors import ConfigError, EvaluationError
from gur_spark.models.catalogue import find
from gur_spark.snapshots.horizon import check_cutoff
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run, record

log = logging.getLogger("gur_spark")

Runs = Mapping[str, Run]
"""Name of a job -> its finished run, in the order in which they ran."""


@dataclass(frozen=True)
class Step:
    """One job and the options that the pipeline gives it."""

    name: str
    stage: cli.Stage
    options: Callable[[ArgumentParser], None]
    given: Callable[[Runs], dict[str, Any]] = field(default=lambda made: {})
    """Options by name, which may depend on earlier runs."""
    may_fail: bool = False
    """Whether the pipeline goes on where the job cannot evaluate."""


def check_dates(config: Config) -> None:
    """Refuse at the start what would fail after minutes.

    Raises:
        ConfigError: there is no date to train on or to score, or training would see what comes after its cutoff.
    """
    for key, dates in (("training.as_of", config.training.as_of), ("scoring.as_of", config.scoring.as_of)):
        if not dates:
            raise ConfigError(f"{key}: the pipeline needs at least one date, such as {key}=[2024-01-31]")
    check_cutoff(config.training.as_of, config.model.looks_ahead_days(), config.training_cutoff, ConfigError)


def run_steps(tables: Tables, config: Config, steps: Iterable[Step]) -> dict[str, Run]:
    """Run every step in order."""
    made: dict[str, Run] = {}
    listed = list(steps)
    for step in listed:
        log.info("[%d/%d] %s ...", len(made) + 1, len(listed), step.name)
        made[step.name] = run_step(tables, config, step, made)
    return made


def run_step(tables: Tables, config: Config, step: Step, made: Runs) -> Run:
    """Run one step with its own row in ``runs``."""
    options = Namespace(**{**vars(defaults(step)), **step.given(made)})
    try:
        with record(tables, step.name, cli.parameters(config.name, options)) as run:
            step.stage(tables, config, options, run)
    except EvaluationError as error:
        if not step.may_fail:
            raise
        log.warning("not evaluated: %s", error)
        run.outputs["not evaluated"] = str(error)
    return run


def defaults(step: Step) -> Namespace:
    """Default options of a job."""
    parser = ArgumentParser()
    step.options(parser)
    return parser.parse_args([])


def trained(made: Runs) -> str:
    """The model version that the train step registered."""
    return made["train"].outputs["model_version"]


def summary(tables: Tables, config: Config, made: Runs) -> str:
    """Text about a pipeline's runs: results, times, tables, and how to read them."""
    outputs = find(config.model.kind).writes
    lines = ["", f"pipeline '{config.name}' published {made['publish'].outputs['published']}", ""]
    lines += [f"  {name:<11}{run.seconds:7.1f} s  {run.totals()}" for name, run in made.items()]
    lines += ["", "  tables"]
    for name in ("events", "quarantine", "vocabulary", "snapshots", "models", *outputs, "published", "runs"):
        lines.append(f"    {name:<11}{tables.read(name).count():>12,} rows  {tables.sql_name(name)}")
    reader = f"read_{outputs[0]}"
    columns = ", ".join(tables.read(outputs[0]).columns)
    lines += [
        "",
        f"  read the {outputs[0]}",
        f"    from gur_spark import load_config, {reader}",
        f"    {reader}(spark, load_config(FILE))      # {columns}",
        "    or in SQL:",
        *[f"      {line}" for line in published_in_sql(tables, config.name, outputs[0])],
        "",
        "  report",
        *[f"    {sentence}" for sentence in advice(made["evaluate"])],
        *[f"    {name}: {path}" for name, path in made["evaluate"].outputs.items()],
    ]
    return "\n".join(lines)


def advice(evaluated: Run) -> list[str]:
    """Sentences of a run's report on what to use for each task; none where there is no report."""
    if "json" not in evaluated.outputs:
        return []
    return [one["says"] for one in json.loads(storage.read_text(evaluated.outputs["json"]))["advice"]]


def published_in_sql(tables: Tables, pipeline: str, output: str) -> list[str]:
    """Lines of the query that reads the published rows of a pipeline, because the output has those of all versions."""
    return [
        f"SELECT e.* FROM {tables.sql_name(output)} e",
        f"JOIN (SELECT model_version, as_of FROM {tables.sql_name('published')}",
        f"      WHERE name = '{pipeline}' ORDER BY switched_at DESC LIMIT 1) p",
        "  ON e.model_version = p.model_version AND e.as_of = p.as_of",
    ]
