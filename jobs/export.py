"""Write the embeddings of a version and date to a folder: Parquet, or NumPy arrays."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from gur_spark import cli
from gur_spark.config.pipeline import Config
from gur_spark.consumers.export import export_embeddings
from gur_spark.registry.known import rows_name
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--to", required=True, metavar="FOLDER", help="a new or empty folder, or an older export")
    parser.add_argument("--format", choices=["parquet", "numpy"], default="parquet", help="default: parquet")
    parser.add_argument("--as-of", type=cli.day, metavar="DATE", help="default: the published date, or the newest")
    parser.add_argument(
        "--model", default="published", metavar="VERSION", help="a version, or newest; default: the published one"
    )


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    version = rows_name(tables, config, args.model)
    made = export_embeddings(tables, config, args.to, form=args.format, version=version, as_of=args.as_of)
    run.add(made.account(args.to))


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("export", __doc__ or "", stage, argv, options)


if __name__ == "__main__":
    sys.exit(main())
