"""Train the pipeline's model on snapshots and register the version."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from gur_spark import cli
from gur_spark.config.pipeline import Config
from gur_spark.registry.tracking import track
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run
from gur_spark.training.run import account, train_model


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--as-of", type=cli.day, nargs="+", metavar="DATE", help="snapshots to train on (default: training.as_of)"
    )
    parser.add_argument(
        "--align-to", metavar="VERSION", help="move the embeddings into the space of this version, or of `published`"
    )


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    made = train_model(tables, config, args.as_of or config.training.as_of, args.align_to)
    run.add(account(made))
    run.outputs |= track(config.tracking, config.name, made.path)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("train", __doc__ or "", stage, argv, options)


if __name__ == "__main__":
    sys.exit(main())
