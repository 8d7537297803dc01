"""Switch the version that consumers read."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from gur_spark import cli
from gur_spark.config.pipeline import Config
from gur_spark.errors import ConfigError
from gur_spark.registry.known import find_own_model
from gur_spark.registry.published import published
from gur_spark.serving.publishing import publish, rollback
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--as-of", type=cli.day, metavar="DATE", help="default: the last of scoring.as_of")
    parser.add_argument(
        "--model",
        metavar="VERSION",
        help="a version, or newest; default: the published one, which moves on to the date",
    )
    parser.add_argument("--reason", help="kept in the published table (default: publish job)")
    parser.add_argument("--force", action="store_true", help="although a gate is not passed; needs a --reason")
    parser.add_argument("--rollback", action="store_true", help="back to what was published before; needs a --reason")


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    if (args.force or args.rollback) and not args.reason:
        raise ConfigError("--force and --rollback need a --reason, which is kept")
    if args.rollback and (args.force or args.model or args.as_of):
        raise ConfigError("--rollback goes back to what was published before: give no --model, --as-of or --force")
    run.inputs["before"] = str(published(tables, config.name) or "nothing")
    if args.rollback:
        run.outputs["published"] = str(rollback(tables, config.name, args.reason))
        return
    as_of = args.as_of or max(cli.scored_dates(config.scoring))
    version = find_own_model(tables, config, args.model).rows_version
    run.add(publish(tables, config, version, as_of, args.reason or "publish job", args.force).account)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("publish", __doc__ or "", stage, argv, options)


if __name__ == "__main__":
    sys.exit(main())
