"""Evaluate embeddings beside what else can be made of the same users: a table, a page, JSON and a picture."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from gur_spark import cli
from gur_spark.config.evaluation import Evaluation
from gur_spark.config.pipeline import Config
from gur_spark.errors import ConfigError
from gur_spark.evaluate.label_tables import check_label_files
from gur_spark.evaluate.run import collect_inputs, make_report, write_report
from gur_spark.evaluate.text import to_text
from gur_spark.registry.known import rows_name
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run


def options(parser: ArgumentParser) -> None:
    default = "several are asked together; default: evaluation.as_of, else the last date of scoring.as_of"
    parser.add_argument("--as-of", type=cli.day, nargs="+", metavar="DATE", help=default)
    parser.add_argument(
        "--model", default="published", metavar="VERSION", help="a version, or newest; default: the published one"
    )
    parser.add_argument(
        "--seeds", type=cli.positive, metavar="NUMBER", help="splits of the users; default: evaluation.seeds"
    )
    epochs = "show CoLES beside, trained for so many epochs at most; default: evaluation.coles_epochs (0: not)"
    parser.add_argument("--coles-epochs", type=cli.positive, metavar="NUMBER", help=epochs)


def stage(tables: Tables, config: Config, args: Namespace, run: Run) -> None:
    dates = sorted(set(args.as_of or config.evaluation.as_of or sorted(config.scoring.as_of)[-1:]))
    if not dates:
        raise ConfigError("no as-of date: give --as-of DATE, or evaluation.as_of in the config")
    given = {"seeds": args.seeds, "coles_epochs": args.coles_epochs}
    changes = {name: value for name, value in given.items() if value is not None}
    settings = Evaluation.model_validate(config.evaluation.model_dump() | changes)
    config = config.model_copy(update={"evaluation": settings})
    inputs = collect_inputs(tables, config, dates, rows_name(tables, config, args.model))
    run.add(inputs.account)
    report = make_report(tables, config, inputs)
    run.counts |= {"users": report.users, **{f"{task.name} test users": task.test_users for task in report.tasks}}
    run.outputs |= write_report(tables, report)
    print(to_text(report))


def check(config: Config) -> None:
    check_label_files(config.evaluation.labels, config.fields.user_id.type)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("evaluate", __doc__ or "", stage, argv, options, check)


if __name__ == "__main__":
    sys.exit(main())
