"""Score every row of a snapshot with one model version, into the tables that the model writes."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from gur_spark import cli
from gur_spark.config.pipeline import Config
from gur_spark.models.catalogue import find
from gur_spark.outputs.embeddings import EMBEDDINGS
from gur_spark.registry.known import find_own_model
from gur_spark.serving.scoring import score_snapshot
from gur_spark.snapshots.wanted import find_snapshot
from gur_spark.spaces.maps import map_embeddings
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--as-of", nargs="+", type=cli.day, metavar="DATE", help="default: scoring.as_of of the config")
    parser.add_argument(
        "--model",
        metavar="VERSION",
        help="a version, or newest; default: the published one (the newest before the first publish)",
    )
    parser.add_argument("--force", metavar="REASON", help="replace published rows although a gate is not passed")
    parser.add_argument(
        "--changed-since",
        type=cli.day,
        metavar="DATE",
        help="copy that scored date's embeddings of users whose inputs are the same; the date itself when it is scored "
        "again; default: everyone is embedded, unless scoring.changed_only",
    )


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    dates = cli.scored_dates(config.scoring, args.as_of)
    model = find_own_model(tables, config, args.model)
    form, manifest = find(model.kind).reads, model.manifest()
    # In their order, since the means of a date are made of those before it.
    for as_of in sorted(dates):
        snapshot = find_snapshot(tables, config, as_of, form, manifest=manifest, vocabulary=model.vocabulary)
        done = score_snapshot(tables, config, snapshot, model.path, run.id, args.changed_since, bool(args.force))
        run.add(done.account)
        if EMBEDDINGS.name in model.outputs:
            run.outputs |= map_embeddings(tables, config.scoring, model.model_version, as_of, run.id)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("score", __doc__ or "", stage, argv, options)


if __name__ == "__main__":
    sys.exit(main())
