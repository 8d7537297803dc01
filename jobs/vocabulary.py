"""Give ids to the category values of events. Values that have an id keep it."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gur_spark import cli
from gur_spark.config.pipeline import Config

if TYPE_CHECKING:
    from gur_spark.tables.delta import Tables
    from gur_spark.tables.runs import Run


def stage(tables: "Tables", config: Config, args: Namespace, run: "Run") -> None:
    from gur_spark.events.vocabulary import fit_vocabulary

    run.add(fit_vocabulary(tables, config, before=args.before).account(config.categorical))


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--before", type=cli.day, metavar="DATE", help="count only events before this UTC date")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("vocabulary", (__doc__ or "").splitlines()[0], stage, argv, options)


if __name__ == "__main__":
    sys.exit(main())
