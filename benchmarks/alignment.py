"""Loss of a consumer that was trained on one version's embeddings and reads those of the next version.

    make run && python -m benchmarks.alignment --retrainings 3 --json OUT

The consumer reads them as they are, aligned (``train --align-to``), or mapped (``scoring.in_space_of``). The tables are
those that ``make run`` leaves. The version of the first seed is the one that the consumer knows; each other seed is a
retraining on the same snapshots, aligned to it. The consumer is a logistic regression for the personas, on the first
version's embeddings of the scored date. It is asked about test users with the embeddings of each version. The maps are
fitted on the last date of training, at which both versions have embeddings. Losses are relative to the consumer's AUC
on its own version.
"""

import argparse
import csv
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.versions import trained_version
from benchmarks.windows import report
from gur_spark.config.file import load_config
from gur_spark.events.vocabulary import read_vocabulary
from gur_spark.models.gur.pairs import write_pairs
from gur_spark.models.gur.scorer import GurScorer
from gur_spark.models.gur.settings import GurModel
from gur_spark.models.kind import VocabularyRef
from gur_spark.registry.artefact import load_model
from gur_spark.session import build_session
from gur_spark.snapshots.wanted import find_snapshot
from gur_spark.spaces.mapping import HELD_OUT, SALT, LinearMap, Regression
from gur_spark.splits import held_out
from gur_spark.tables.open import open_tables
from gur_spark.training.version import TrainedVersion


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
    config = load_config("conf/demo.yaml", [f"tables.root={args.root}", "engine=sail"])
    tables = open_tables(build_session(config), config.tables)
    trained_on = [find_snapshot(tables, config, day) for day in config.training.as_of]
    vocabulary = read_vocabulary(tables, trained_on[0].vocabulary_version)
    pairs = write_pairs(tables, config, trained_on, vocabulary, str(work / "pairs"))

    known = VocabularyRef(version=vocabulary.version, hash=vocabulary.hash, sizes=vocabulary.sizes)

    def made(seed: int, align_to: str | None) -> TrainedVersion:
        training = config.training.model_copy(update={"seed": seed})
        older = load_model(align_to).artefact if align_to else None
        return trained_version(pairs, known, GurModel.of(config.model), training, str(work), older)

    scored, common = find_snapshot(tables, config, config.scoring.as_of[0]).path, trained_on[-1].path
    users, labels = personas(scored, args.labels)
    test_N = held_out(users, 0.3, "benchmark")
    first = made(0, None)
    consumer = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    consumer.fit(embed(scorer(first.path), scored)[~test_N], labels[~test_N])

    def auc(x_NL: Any) -> float:
        return float(roc_auc_score(labels[test_N], consumer.predict_proba(x_NL[test_N]), multi_class="ovr"))

    own = auc(embed(scorer(first.path), scored))
    runs: list[dict[str, float]] = []
    for seed in range(1, args.retrainings + 1):
        version = made(seed, first.path)
        new, old = scorer(version.path), scorer(first.path)
        found = fitted(new, old, common)
        as_they_are = embed(replace(new, motion=None), scored)
        spaces = {"alone": as_they_are, "aligned": embed(new, scored), "mapped": found(embed(new, scored))}
        losses = {f"relative_loss_{name}": 1 - auc(x_NL) / own for name, x_NL in spaces.items()}
        residuals = {"residual_aligned": version.metrics["alignment_residual"], "residual_mapped": found.residual}
        runs.append({**losses, **residuals})
    medians = {name: median(run[name] for run in runs) for name in runs[0]}
    return {"auc_on_its_own_version": own, **medians, "test_users": int(test_N.sum()), "runs": runs}


def scorer(path: str) -> GurScorer:
    return cast(GurScorer, load_model(path).scorer)


def fitted(new: GurScorer, old: GurScorer, snapshot: str) -> LinearMap:
    """The map from one version to another on the users of a snapshot."""
    users = pq.read_table(f"{snapshot}/data", columns=["user_id"])["user_id"].combine_chunks()
    regression = Regression()
    regression.update(embed(new, snapshot), embed(old, snapshot), held_out(users, HELD_OUT, SALT))
    return regression.fit()


def personas(snapshot: str, file: str) -> tuple[Any, Any]:
    """The users of a snapshot, and the persona of each."""
    with Path(file).open() as lines:
        of_user = {int(row["client"]): row["persona"] for row in csv.DictReader(lines)}
    users = pq.read_table(f"{snapshot}/data", columns=["user_id"])["user_id"].combine_chunks()
    return users, np.array([of_user[user] for user in users.to_pylist()])


def embed(model: GurScorer, snapshot: str) -> Any:
    """Embeddings in the order of ``personas``."""
    rows = pq.read_table(f"{snapshot}/data").combine_chunks().to_batches()
    return np.concatenate([model.vectors(batch).astype(np.float64) for batch in rows])


if __name__ == "__main__":
    sys.exit(main())
