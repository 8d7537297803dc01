"""Example of a consumer: churn probabilities from the published embeddings, also after a switch of versions."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import get_args

from gur_spark import cli
from gur_spark.config.pipeline import Config
from gur_spark.consumers.churn import OnSwitch, predict_churn
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--as-of", type=cli.day, metavar="DATE", help="default: the published date")
    parser.add_argument(
        "--label-dates",
        type=cli.day,
        nargs="+",
        default=[],
        metavar="DATE",
        help="learn from churn after these; default: every scored date of the version whose future is known",
    )
    parser.add_argument(
        "--on-switch",
        choices=get_args(OnSwitch),
        default="retrain",
        help="action when the published version is in another space than the model; default: retrain",
    )
    parser.add_argument("--retrain", action="store_true", help="train a new model even if the old one fits")


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    made = predict_churn(
        tables,
        config,
        as_of=args.as_of,
        label_dates=args.label_dates,
        on_switch=args.on_switch,
        retrain=args.retrain,
    )
    run.add(made.account)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("churn_example", __doc__ or "", stage, argv, options)


if __name__ == "__main__":
    sys.exit(main())
