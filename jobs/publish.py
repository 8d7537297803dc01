"""Switch the version that consumers read."""

import logging
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from datetime import date

from gur_spark import cli
from gur_spark.config.pipeline import Config
from gur_spark.errors import ConfigError, GateError
from gur_spark.outputs.gates import GATES_FOUND, GATES_OF, to_json
from gur_spark.registry.known import find_model
from gur_spark.registry.published import published
from gur_spark.serving.publishing import publish, rollback
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run

log = logging.getLogger("gur_spark")


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--as-of", type=cli.day, metavar="DATE", help="default: the last of scoring.as_of")
    parser.add_argument(
        "--model",
        metavar="VERSION",
        help="a version, or newest; default: the published one, which moves on to the date",
    )
    parser.add_argument("--reason", help="kept in the published table (default: scheduled)")
    parser.add_argument("--force", action="store_true", help="although a gate is not passed; needs a --reason")
    parser.add_argument("--rollback", action="store_true", help="back to what was published before; needs a --reason")


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    if (args.force or args.rollback) and not args.reason:
        raise ConfigError("--force and --rollback need a --reason, which is kept")
    before = published(tables, config.name)
    run.inputs["before"] = f"{before.model_version} at {before.as_of}" if before else "nothing"
    if args.rollback:
        if args.force or args.model or args.as_of:
            raise ConfigError("--rollback goes back to what was published before: give no --model, --as-of or --force")
        back = rollback(tables, config, args.reason)
        run.outputs["published"] = f"{back.model_version} at {back.as_of}"
        return
    as_of = args.as_of or max(config.scoring.as_of, default=None)
    if as_of is None:
        raise ConfigError("no as-of date: give --as-of DATE, or scoring.as_of in the config")
    version = find_model(tables, config, args.model).rows_version
    try:
        done = publish(tables, config, version, as_of, args.reason or "scheduled", args.force)
    except GateError as error:
        keep(run, version, as_of, error.outcomes)
        raise
    keep(run, version, as_of, done.outcomes)
    main, *others = done.rows
    run.counts |= {"rows": done.rows[main], **{f"rows of {name}": done.rows[name] for name in others}}
    run.outputs["published"] = f"{version} at {as_of}"
    log.info("published %s at %s, before: %s", version, as_of, run.inputs["before"])


def keep(run: Run, version: str, as_of: date, outcomes: Sequence[object]) -> None:
    """Keep what the gates found, passed or not, where they were asked."""
    if outcomes:
        run.outputs |= {GATES_OF: f"{version} at {as_of}", GATES_FOUND: to_json(outcomes)}


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("publish", __doc__ or "", stage, argv, options)


if __name__ == "__main__":
    sys.exit(main())
