"""Quality of embeddings beside every baseline, at several dates and over several splits of the users.

    python -m benchmarks.quality --json OUT --log online_retail --earlier 0 28 56

It ingests the demo's log or a real one, trains GUR on the configuration's dates (by its loss or by each of ``--loss``),
scores the evaluated dates, and reports on them beside raw windows, PCA, a random encoder, hand-made statistics and
CoLES. ``--earlier`` moves all dates back by so many days, by several in turn, oldest first. Each then has a training
(of GUR and of CoLES) and probes of its own, and a vocabulary that continues the one before; all are in one report. With
``--label-shares``, probes learn from so many users' answers; PCA and scaling are fitted on all users. Losses or
settings (any further ``key=value``, before the options) are chosen at earlier dates than the reported ones. Real logs
are found by ``GUR_SPARK_DATA``.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.windows import report
from gur_spark.config.evaluation import Evaluation
from gur_spark.config.file import load_config
from gur_spark.config.pipeline import Config
from gur_spark.evaluate.page import to_html
from gur_spark.evaluate.probe import evaluate
from gur_spark.evaluate.report import Report
from gur_spark.evaluate.run import ReportInputs, collect_inputs
from gur_spark.evaluate.text import to_text
from gur_spark.events.ingest import ingest
from gur_spark.events.vocabulary import fit_vocabulary
from gur_spark.models.gur.settings import GurModel
from gur_spark.serving.scoring import score_snapshot
from gur_spark.session import build_session
from gur_spark.snapshots.aggregation import aggregate_snapshots
from gur_spark.snapshots.wanted import find_snapshot
from gur_spark.synthetic.files import write
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables
from gur_spark.training.run import train_model


def main() -> int:
    parser = argparse.ArgumentParser(description="embeddings beside every baseline")
    parser.add_argument("--log", default="demo", choices=["demo", "online_retail", "mobile_game1", "deskdrop"])
    parser.add_argument("--demo-seed", type=int, default=7, help="of the demo's log; another one has other users")
    parser.add_argument("--seeds", type=int, default=5, help="splits of the users")
    parser.add_argument("--coles-epochs", type=int, default=100, help="budget; it stops where its validation loss does")
    parser.add_argument("--loss", nargs="*", help="each in turn, such as '{future: 1}'; default: the configured one")
    shares = "of the users whose answers the probes learn from, in turn; default: what evaluation.test_share leaves"
    parser.add_argument("--label-shares", type=share, nargs="+", metavar="SHARE", help=shares)
    parser.add_argument(
        "--earlier", type=int, nargs="+", default=[0], metavar="DAYS", help="move all dates back, in turn"
    )
    parser.add_argument("--engine", default="sail")
    parser.add_argument("--pages", metavar="FOLDER", help="keep the reports' pages and pictures here")
    parser.add_argument("--json", metavar="OUT")
    args, changes = parser.parse_known_args()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("gur_spark").setLevel(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="gur_quality_") as work:
        return report(measure(Path(work), args, changes), args.json)


def share(text: str) -> float:
    """A share of the users on the command line, neither none nor all."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a share between 0 and 1, got {text}")
    return value


def measure(work: Path, args: argparse.Namespace, changes: Sequence[str]) -> dict[str, object]:
    given = [
        f"engine={args.engine}", f"tables.root={work}/tables", f"evaluation.seeds={args.seeds}",
        f"evaluation.coles_epochs={args.coles_epochs}", *demo(work, args), *changes,
    ]  # fmt: skip
    plain = load_config(f"conf/{args.log}.yaml", given)
    tables = open_tables(build_session(plain), plain.tables)
    for name in plain.all_logs:
        ingest(tables, plain, uuid4().hex, name=name)
    found: dict[str, Any] = {"log": args.log, "changes": list(changes), "earlier_days": args.earlier}
    if args.log == "demo":
        found["demo_seed"] = args.demo_seed
    asked: dict[str, list[ReportInputs]] = {}
    for days in sorted(args.earlier, reverse=True):
        moved = [*given, *earlier(plain, days)]
        losses = [[f"model.loss={loss}"] for loss in args.loss or []] or [[]]
        configs = [load_config(f"conf/{args.log}.yaml", [*moved, *loss]) for loss in losses]
        make_snapshots(tables, configs[0])
        for config in configs:
            name = ", ".join(f"{loss} {weight:g}" for loss, weight in GurModel.of(config.model).loss.items())
            asked.setdefault(name, []).append(train_and_ask(tables, config))
    for name, parts in asked.items():
        for labelled in args.label_shares or [1 - plain.evaluation.test_share]:
            settings = plain.evaluation.model_copy(update={"test_share": 1 - labelled})
            judged = judge(plain.name, settings, parts)
            print(f"{name}; answers of {labelled:.0%} of the users\n{to_text(judged)}", flush=True)
            found.setdefault(name, {})[f"{labelled:g} of the answers"] = summary(judged)
            if args.pages:
                Path(args.pages).mkdir(parents=True, exist_ok=True)
                Path(args.pages, f"{args.log}, {name}, {labelled:g}.html").write_text(to_html(judged))
    return found


def demo(work: Path, args: argparse.Namespace) -> list[str]:
    """Write the demo's log, and return overrides with its place."""
    if args.log != "demo":
        return []
    write(work / "raw", 3000, args.demo_seed)
    label = f"{{name: persona, path: {work}/raw/labels.csv, user_column: client, label_column: persona}}"
    return [f"source.path={work}/raw/landings", f"evaluation.labels=[{label}]"]


def earlier(config: Config, days: int) -> list[str]:
    """Overrides that move the dates of training, scoring and evaluation back."""
    if not days:
        return []
    back = timedelta(days)
    moved = {"training": config.training.as_of, "scoring": config.scoring.as_of, "evaluation": config.evaluation.as_of}
    return [f"{key}.as_of=[{','.join(str(day - back) for day in days)}]" for key, days in moved.items()]


def make_snapshots(tables: Tables, config: Config) -> None:
    # The vocabulary knows nothing of the time after training, as in production.
    fit_vocabulary(tables, config, max(config.training.as_of))
    dates = sorted({*config.training.as_of, *config.scoring.as_of})
    aggregate_snapshots(tables, config, dates, uuid4().hex)


def train_and_ask(tables: Tables, config: Config) -> ReportInputs:
    """Train, score the evaluated dates, and collect the inputs of the report."""
    made = train_model(tables, config, config.training.as_of)
    for as_of in config.evaluation.as_of:
        score_snapshot(tables, config, find_snapshot(tables, config, as_of), made.path, uuid4().hex)
    return collect_inputs(tables, config, config.evaluation.as_of, made.version)


def judge(pipeline: str, settings: Evaluation, parts: Sequence[ReportInputs]) -> Report:
    """Make one report on the dates of all trainings."""
    return evaluate(
        [population for part in parts for population in part.populations],
        settings,
        pipeline=pipeline,
        notes=[note for part in parts for note in part.notes],
        left_out=list(dict.fromkeys(reason for part in parts for reason in part.left_out)),
    )


def summary(judged: Report) -> dict[str, Any]:
    """Summarise each task by its first metric: the score of every representation, and the embedding's differences."""
    tasks = {}
    for task in judged.tasks:
        metric = judged.of(task.name)[0].metric
        tasks[task.name] = {
            "metric": metric,
            "test_users": task.test_users,
            "scores": {
                f"{s.representation}, {s.model}": [s.value, s.low, s.high]
                for s in judged.of(task.name)
                if s.metric == metric
            },
            "differences": {
                f"{d.against}, {d.model}": [d.value, d.low, d.high, judged.verdict(d)]
                for d in judged.headline(task.name)
            },
            "by_date": {f"{d.against}, {d.model}": judged.by_date(d) for d in judged.headline(task.name)},
        }
    return {"dates": list(judged.dates), "seeds": judged.seeds, "notes": list(judged.notes), "tasks": tasks}


if __name__ == "__main__":
    sys.exit(main())
