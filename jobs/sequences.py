"""Write one row per user with arrays of events, in Parquet that pytorch-lifestream reads."""

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence

from pydantic import ValidationError

from gur_spark import cli
from gur_spark.config.pipeline import Config
from gur_spark.errors import ConfigError
from gur_spark.features.declare.manifest import sequence_columns
from gur_spark.features.declare.spec import Window
from gur_spark.snapshots.sequences import write_sequences
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run
from jobs.aggregate import chosen_vocabulary, vocabulary_version


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--as-of", nargs="+", type=cli.day, metavar="DATE", help="default: training.as_of of the config"
    )
    parser.add_argument(
        "--window",
        type=window,
        metavar="DAYS",
        help="days before as_of, or lifetime; default: the longest of aggregates.windows",
    )
    parser.add_argument(
        "--max-events", type=positive, metavar="NUMBER", help="of a user with more, only the newest; default: all"
    )
    parser.add_argument(
        "--known-at",
        type=cli.moment,
        metavar="TIME",
        help="take what had landed before this (UTC); default: as_of midnight + aggregates.delay_days",
    )
    parser.add_argument(
        "--vocabulary",
        type=vocabulary_version,
        metavar="VERSION",
        help="a version, or newest; default: the published model's (the newest before the first publish)",
    )


def window(text: str) -> Window:
    """A window of the command line: ``lifetime``, or days with or without a ``d``."""
    try:
        return Window(days=None if text == "lifetime" else int(text.removesuffix("d")))
    except (ValueError, ValidationError) as error:
        raise ArgumentTypeError(f"expected days such as 180d, or lifetime, got '{text}'") from error


def positive(text: str) -> int:
    """A number of events of the command line."""
    if not text.isdigit() or not int(text):
        raise ArgumentTypeError(f"expected a number above 0, got '{text}'")
    return int(text)


def check(config: Config) -> None:
    sequence_columns(config.manifest(), {})


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    dates = args.as_of or config.training.as_of
    if not dates:
        raise ConfigError("no as-of date: give --as-of DATE, or training.as_of in the config")
    vocabulary = chosen_vocabulary(tables, config, args.vocabulary)
    for as_of in dates:
        write_sequences(
            tables,
            config,
            as_of,
            run,
            window=args.window,
            max_events=args.max_events,
            vocabulary_version=vocabulary,
            known_at=args.known_at,
        )


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("sequences", __doc__ or "", stage, argv, options, check)


if __name__ == "__main__":
    sys.exit(main())
