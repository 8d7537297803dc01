"""A small demo log and the tables a pipeline makes of it, for the tests that need all stages."""

from argparse import Namespace
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

from gur_spark.config.file import load_config
from gur_spark.config.pipeline import Config
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables
from gur_spark.tables.runs import record

ROOT = Path(__file__).parents[1]
SMALL = (
    "training.as_of=[2025-03-01,2025-03-15]", "scoring.as_of=[2025-04-01]", "evaluation.as_of=2025-04-01",
    # Losses that learn from another date have tests of their own: test_pairs, test_augmentations.
    "model.loss=likelihood", "training.epochs=2", "training.device=cpu", "model.latent_dim=8",
    "evaluation.bootstrap=20", "spark.memory=2g",
    "evaluation.hand_made=false", "evaluation.coles_epochs=0", "evaluation.tasks=[{kind: churn}]",
    # As in conftest.py: little data, so plans are not compiled.
    'spark.conf={spark.sql.codegen.wholeStage: "false", spark.sql.codegen.factoryMode: NO_CODEGEN}',
)  # fmt: skip


def overrides(raw: Path, root: Path, *more: str) -> list[str]:
    labels = (
        f"evaluation.labels=[{{name: persona, path: {raw}/labels.csv, user_column: client, label_column: persona}}]"
    )
    return [f"tables.root={root}", f"source.path={raw}/landings", labels, *SMALL, *more]


def clients(raw: Path, numbers: Iterable[int]) -> list[int]:
    """Users of the log, by number."""
    users = [int(line.split(",")[0]) for line in (raw / "labels.csv").read_text().splitlines()[1:]]
    return [users[number] for number in numbers]


def land(raw: Path, landings: Path, day: date, numbers: Iterable[int]) -> None:
    """Write the landing of a day: two purchases of each of these users."""
    lines = ["client,booked_at,merchant_category,channel,amount"]
    lines += [f"{user},{day} 1{n}:00:00,bar,chip,{n + 1}.50" for user in clients(raw, numbers) for n in range(2)]
    (landings / f"{day}.csv").write_text("\n".join(lines) + "\n")


def opened(spark: Any, raw: Path, root: Path) -> tuple[Tables, Config]:
    """The tables of a pipeline, and its config."""
    config = load_config(ROOT / "conf" / "demo.yaml", overrides(raw, root))
    return open_tables(spark, config.tables), config


def run_pipeline(spark: Any, raw: Path, root: Path) -> tuple[Tables, Config]:
    """The whole pipeline in this process."""
    from jobs import pipeline

    tables, config = opened(spark, raw, root)
    with record(tables, "pipeline", {}) as run:
        pipeline.stage(tables, config, Namespace(), run)
    return tables, config
