"""The whole way from a raw log to published and evaluated embeddings, stage by stage in one session."""

import logging
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gur_spark import cli
from gur_spark.config.pipeline import Config
from gur_spark.errors import ConfigError, EvaluationError
from gur_spark.models.gur.pairs import check_cutoff
from gur_spark.registry.names import VersionName
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run, record
from jobs import aggregate, evaluate, ingest, publish, score, train, vocabulary

log = logging.getLogger("gur_spark")


@dataclass(frozen=True)
class Step:
    """One job and the options the pipeline gives it."""

    name: str
    stage: cli.Stage
    options: Callable[[ArgumentParser], None]
    given: dict[str, Any]


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    """Run every stage; each leaves its own row in ``runs``."""
    made: list[Run] = []
    for step in steps(config, made):
        log.info("[%d/7] %s ...", len(made) + 1, step.name)
        made.append(run_step(tables, config, step))
    run.counts |= {f"{one.job} ms": round(one.seconds * 1000) for one in made}
    run.outputs |= {name: value for one in made for name, value in one.outputs.items()}
    print(summary(tables, config, made))


def run_step(tables: Tables, config: Config, step: Step) -> Run:
    """Run one stage with its own row in ``runs``."""
    options = defaults(step)
    try:
        with record(tables, step.name, cli.parameters(config, options)) as run:
            step.stage(tables, config, options, run)
    except EvaluationError as error:
        # Embeddings of today have no future to be judged by yet: unless the config names
        # a date to evaluate, what was published stands, and the summary says why no report was made.
        if config.evaluation.as_of:
            raise
        log.warning("not evaluated: %s", error)
        run.outputs["not evaluated"] = str(error)
    return run


def steps(config: Config, made: Sequence[Run]) -> Iterator[Step]:
    """The stages in order; a later one may depend on what an earlier one made."""
    # It aggregates all its dates itself, so it does not ask which are stale.
    yield Step("ingest", ingest.read_landings, ingest.options, {})
    # The vocabulary knows nothing of the time after training, as it would not in production.
    yield Step("vocabulary", vocabulary.stage, vocabulary.options, {"before": max(config.training.as_of)})
    yield Step("aggregate", aggregate.stage, aggregate.options, {"vocabulary": "newest"})
    yield Step("train", train.stage, train.options, {})
    version = made[-1].outputs["model_version"]
    yield Step("score", score.stage, score.options, {"model": version})
    served = str(VersionName(version, mean_of=config.scoring.smoothing))
    yield Step("publish", publish.stage, publish.options, {"model": served, "reason": "pipeline"})
    yield Step("evaluate", evaluate.stage, evaluate.options, {})


def defaults(step: Step) -> Namespace:
    """The job's own defaults, with the pipeline's choices on top."""
    parser = ArgumentParser()
    step.options(parser)
    return Namespace(**{**vars(parser.parse_args([])), **step.given})


def check_dates(config: Config) -> None:
    """Refuse at the start what would fail after minutes."""
    for key, dates in (("training.as_of", config.training.as_of), ("scoring.as_of", config.scoring.as_of)):
        if not dates:
            raise ConfigError(f"{key}: the pipeline needs at least one date, such as {key}=[2024-01-31]")
    if config.model.looks_ahead_days():
        check_cutoff(config, config.training.as_of, ConfigError)


def summary(tables: Tables, config: Config, made: Sequence[Run]) -> str:
    """What was made, how long it took, and how to read it."""
    published = made[-2].outputs["published"]
    lines = ["", f"pipeline '{config.name}' published {published}", ""]
    lines += [f"  {one.job:<11}{one.seconds:7.1f} s  {_counts(one)}" for one in made]
    lines += ["", "  tables"]
    for name in ("events", "quarantine", "vocabulary", "snapshots", "models", "embeddings", "published", "runs"):
        lines.append(f"    {name:<11}{tables.read(name).count():>12,} rows  {tables.sql_name(name)}")
    lines += [
        "",
        "  read the embeddings",
        "    from gur_spark import load_config, read_embeddings",
        "    read_embeddings(spark, load_config(FILE))      # user_id, as_of, model_version, embedding, events",
        f"    or in SQL: SELECT * FROM {tables.sql_name('embeddings')}",
        "",
        "  report",
        *[f"    {name}: {path}" for name, path in made[-1].outputs.items()],
    ]
    return "\n".join(lines)


def _counts(run: Run) -> str:
    return ", ".join(f"{name} {value:,}" for name, value in run.counts.items())


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("pipeline", __doc__ or "", stage, argv, check=check_dates)


if __name__ == "__main__":
    sys.exit(main())
