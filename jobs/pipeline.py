"""The whole way from a raw log to published and evaluated rows, job by job in one session."""

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence

from gur_spark import cli
from gur_spark.config.pipeline import Config
from gur_spark.models.catalogue import find
from gur_spark.models.kind import Form
from gur_spark.registry.names import VersionName
from gur_spark.steps import Step, check_dates, run_steps, summary, trained
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run
from jobs import aggregate, evaluate, ingest, interactions, publish, score, sequences, train, vocabulary


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    """Run every job; each leaves its own row in ``runs``."""
    made = run_steps(tables, config, steps(config))
    run.counts |= {f"{name} ms": round(one.seconds * 1000) for name, one in made.items()}
    run.outputs |= {name: value for one in made.values() for name, value in one.outputs.items()}
    print(summary(tables, config, made))


def steps(config: Config) -> Iterator[Step]:
    """The jobs that a pipeline of its kind of model needs, in order."""
    dates = sorted({*config.training.as_of, *config.scoring.as_of})
    judged = config.evaluation.as_of or [max(config.scoring.as_of)]
    # The pipeline makes all its snapshots itself, so ingest does not ask which are stale.
    yield Step("ingest", ingest.read_landings, ingest.options)
    # The vocabulary knows nothing of the time after training, as it would not in production.
    yield Step("vocabulary", vocabulary.stage, vocabulary.options, lambda _: {"before": max(config.training.as_of)})
    reads = find(config.model.kind).reads
    every = {"as_of": dates, "vocabulary": "newest"}
    if reads is Form.SEQUENCES:
        yield Step("sequences", sequences.stage, sequences.options, lambda _: every)
    if reads is Form.INTERACTIONS:
        yield Step("interactions", interactions.stage, interactions.options, lambda _: every)
    # A report shows raw windows beside every kind.
    windows = every if reads is Form.AGGREGATES else {**every, "as_of": judged}
    yield Step("aggregate", aggregate.stage, aggregate.options, lambda _: windows)
    yield Step("train", train.stage, train.options)
    yield Step("score", score.stage, score.options, lambda made: {"model": trained(made)})
    yield Step("publish", publish.stage, publish.options, lambda made: rows_of(trained(made), config))
    # Today's rows have no future to be judged by yet: unless the configuration names a date to evaluate, what was
    # published stands, and the summary says why there is no report.
    yield Step("evaluate", evaluate.stage, evaluate.options, may_fail=not config.evaluation.as_of)


def rows_of(version: str, config: Config) -> dict[str, str]:
    """Options of the publish job; with smoothing, consumers read the means."""
    return {"model": str(VersionName(version, config.scoring.smoothing)), "reason": "pipeline"}


def check(config: Config) -> None:
    """Refuse at the start what would fail after minutes."""
    check_dates(config)
    evaluate.check(config)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("pipeline", __doc__ or "", stage, argv, check=check)


if __name__ == "__main__":
    sys.exit(main())
