"""Write sequences of events as the section `sequences` says: one Parquet snapshot per as-of date."""

import sys
from argparse import Namespace
from collections.abc import Sequence

from gur_spark import cli
from gur_spark.config.pipeline import Config
from gur_spark.registry.vocabularies import chosen_vocabulary
from gur_spark.snapshots.sequences import recipe_of, sequence_snapshots
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run

options = cli.snapshot_options


def check(config: Config) -> None:
    """Refuse fields whose names pytorch-lifestream takes for something else."""
    recipe_of(config.sequences, config.manifest())


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    dates = cli.as_of_dates(config, args)
    vocabulary = chosen_vocabulary(tables, config, args.vocabulary)
    made = sequence_snapshots(tables, config, dates, run.id, vocabulary, args.known_at, args.again)
    run.add(made.account)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("sequences", __doc__ or "", stage, argv, options, check)


if __name__ == "__main__":
    sys.exit(main())
