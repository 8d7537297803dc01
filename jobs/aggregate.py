"""Aggregate events over the declared windows: one Parquet snapshot per as-of date."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from gur_spark import cli
from gur_spark.config import Config
from gur_spark.errors import ConfigError
from gur_spark.runs import Run
from gur_spark.snapshots import aggregate_snapshot
from gur_spark.tables import Tables


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--as-of", nargs="+", type=cli.day, metavar="DATE", help="default: every date the config trains or scores on"
    )
    parser.add_argument("--vocabulary", type=int, metavar="VERSION", help="default: the newest version")


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    dates = args.as_of or sorted({*config.training.as_of, *config.scoring.as_of})
    if not dates:
        raise ConfigError("no as-of date: give --as-of DATE, or training.as_of and scoring.as_of in the config")
    for as_of in dates:
        snapshot = aggregate_snapshot(tables, config, as_of, run, args.vocabulary)
        run.inputs["vocabulary"] = f"{snapshot.vocabulary_version} {snapshot.vocabulary_hash}"
        run.outputs[str(as_of)] = snapshot.path
        run.counts[f"rows {as_of}"] = snapshot.rows


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("aggregate", __doc__ or "", stage, argv, options)


if __name__ == "__main__":
    sys.exit(main())
