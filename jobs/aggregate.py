"""Aggregate events over the declared windows: one Parquet snapshot per as-of date."""

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence

from gur_spark import cli
from gur_spark.config import Config
from gur_spark.errors import ConfigError
from gur_spark.model_versions import find_model
from gur_spark.publishing import published
from gur_spark.runs import Run
from gur_spark.snapshots import aggregate_snapshot
from gur_spark.tables import Tables


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--as-of", nargs="+", type=cli.day, metavar="DATE", help="default: every date the config trains or scores on"
    )
    parser.add_argument(
        "--known-at",
        type=cli.moment,
        metavar="TIME",
        help="count what had landed before this (UTC); default: as_of midnight + aggregates.delay_days",
    )
    parser.add_argument(
        "--vocabulary",
        type=vocabulary_version,
        metavar="VERSION",
        help="a version, or newest; default: the published model's (the newest before the first publish)",
    )


def vocabulary_version(text: str) -> str:
    """A version of the command line: a number, or ``newest``."""
    if text != "newest" and not text.isdigit():
        raise ArgumentTypeError(f"expected a number or 'newest', got '{text}'")
    return text


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    dates = args.as_of or sorted({*config.training.as_of, *config.scoring.as_of})
    if not dates:
        raise ConfigError("no as-of date: give --as-of DATE, or training.as_of and scoring.as_of in the config")
    vocabulary = chosen_vocabulary(tables, config, args.vocabulary)
    for as_of in dates:
        snapshot = aggregate_snapshot(tables, config, as_of, run, vocabulary, args.known_at)
        run.inputs["vocabulary"] = f"{snapshot.vocabulary_version} {snapshot.vocabulary_hash}"
        run.outputs[str(as_of)] = snapshot.path
        run.counts[f"rows {as_of}"] = snapshot.rows


def chosen_vocabulary(tables: Tables, config: Config, given: str | None) -> int | None:
    """The version to encode with; None is the newest.

    The default is the published model's own, so that a refit does not stop the daily scoring.
    """
    if given == "newest" or (given is None and published(tables, config) is None):
        return None
    return int(given) if given else find_model(tables, config).vocabulary_version


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("aggregate", __doc__ or "", stage, argv, options)


if __name__ == "__main__":
    sys.exit(main())
