"""Switch the version that consumers read."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from gur_spark import cli
from gur_spark.config import Config
from gur_spark.errors import ConfigError
from gur_spark.model_versions import find_model
from gur_spark.publishing import publish, published
from gur_spark.runs import Run
from gur_spark.tables import Tables


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--as-of", type=cli.day, metavar="DATE", help="default: the last of scoring.as_of")
    parser.add_argument(
        "--model",
        metavar="VERSION",
        help="a version, or newest; default: the published one, which moves on to the date",
    )
    parser.add_argument("--reason", default="scheduled", help="kept in the published table")


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    as_of = args.as_of or max(config.scoring.as_of, default=None)
    if as_of is None:
        raise ConfigError("no as-of date: give --as-of DATE, or scoring.as_of in the config")
    version = find_model(tables, config, args.model).model_version
    before = published(tables, config)
    run.counts["rows"] = publish(tables, config, version, as_of, args.reason)
    run.inputs["before"] = f"{before.model_version} at {before.as_of}" if before else "nothing"
    run.outputs["published"] = f"{version} at {as_of}"


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("publish", __doc__ or "", stage, argv, options)


if __name__ == "__main__":
    sys.exit(main())
