"""What a consumer loses that was trained on the embeddings of one version and reads those of the next, aligned or not.

    make run && python -m benchmarks.alignment --retrainings 3 --json OUT

Over the tables that ``make run`` leaves: the version of the first seed is what consumers know, each other seed is a
retraining on the same snapshots, aligned to it. The consumer is a logistic regression on the first version's embeddings
of the scored date, for the personas; it is asked about test users with the embeddings of each version. Losses are
relative to the AUC that it has on its own version.
"""

import argparse
import csv
import sys
import tempfile
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from deltalake import DeltaTable
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.windows import report
from gur_spark.config_file import load_config
from gur_spark.registry import load_model
from gur_spark.splits import held_out
from gur_spark.training import TrainedModel, train


def main() -> int:
    parser = argparse.ArgumentParser(description="consumers that were not retrained")
    parser.add_argument("--root", default="build/demo/tables", help="tables of the demo")
    parser.add_argument("--labels", default="build/demo/raw/labels.csv")
    parser.add_argument("--retrainings", type=int, default=3)
    parser.add_argument("--json", metavar="OUT")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gur_alignment_") as work:
        return report(measure(Path(work), args), args.json)


def measure(work: Path, args: argparse.Namespace) -> dict[str, object]:
    config = load_config("conf/demo.yaml")
    rows = DeltaTable(f"{args.root}/snapshots").to_pyarrow_table().to_pylist()
    snapshots: dict[date, str] = {row["as_of"]: row["path"] for row in rows}
    vocabulary = sizes(DeltaTable(f"{args.root}/vocabulary"), rows[0]["vocabulary_version"])

    def made(seed: int, align_to: str | None) -> TrainedModel:
        return train(
            [snapshots[day] for day in config.training.as_of], vocabulary, rows[0]["vocabulary_version"],
            rows[0]["vocabulary_hash"], config.model, config.training.model_copy(update={"seed": seed}),
            work=str(work / "checkpoints"), out=str(work / "models"), align_to=align_to,
        )  # fmt: skip

    users, labels = personas(snapshots[config.scoring.as_of[0]], args.labels)
    test_N = held_out(users, 0.3, "benchmark")
    first = made(0, None)
    consumer = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))

    def auc(version: TrainedModel) -> float:
        x_NL = embed(version.path, snapshots[config.scoring.as_of[0]])
        if version is first:
            consumer.fit(x_NL[~test_N], labels[~test_N])
        return float(roc_auc_score(labels[test_N], consumer.predict_proba(x_NL[test_N]), multi_class="ovr"))

    own = auc(first)
    aligned, alone = ([made(n, to) for n in range(1, args.retrainings + 1)] for to in (first.path, None))
    losses = {name: [1 - auc(v) / own for v in versions] for name, versions in (("aligned", aligned), ("alone", alone))}
    return {
        "auc_on_its_own_version": own,
        "relative_loss_aligned": median(losses["aligned"]),
        "relative_loss_alone": median(losses["alone"]),
        "residual": median(v.metrics["alignment_residual"] for v in aligned),
        "test_users": int(test_N.sum()),
        "runs": losses,
    }


def sizes(table: DeltaTable, version: int) -> dict[str, int]:
    """Greatest id + 1 of each field."""
    found: dict[str, int] = {}
    for row in table.to_pyarrow_table().to_pylist():
        if row["version"] == version:
            found[row["field"]] = max(found.get(row["field"], 0), row["id"] + 1)
    return found


def personas(snapshot: str, file: str) -> tuple[Any, Any]:
    """The users of a snapshot, and the persona of each."""
    with Path(file).open() as lines:
        of_user = {int(row["client"]): row["persona"] for row in csv.DictReader(lines)}
    users = pq.read_table(f"{snapshot}/data", columns=["user_id"])["user_id"].combine_chunks()
    return users, np.array([of_user[user] for user in users.to_pylist()])


def embed(path: str, snapshot: str) -> Any:
    """Embeddings in the order of ``personas``."""
    model = load_model(path)
    rows = pq.read_table(f"{snapshot}/data").combine_chunks().to_batches()
    return np.concatenate([model.embed(batch) for batch in rows])


if __name__ == "__main__":
    sys.exit(main())
