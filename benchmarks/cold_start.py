"""Knowledge of an embedding about users without events: with a profile, and with nothing at all.

    python -m benchmarks.cold_start --json OUT

The demo's log has profiles (country, plan, interests picked at sign-up) beside it. One user in five is cold: their
events are taken out, they are in no training snapshot, and a users list alone gives them a row at the scored date.

* persona: a logistic regression on the embeddings of the other users is asked about cold ones, beside one on the
  attributes themselves (one-hot) and the most frequent persona; macro AUC and accuracy.
* neighbours: the ten users with events that are nearest to a cold user: the share with the same country and plan, and
the
  overlap of interests (Jaccard); beside users drawn at random.

Each loss that is asked for is trained once with ``model.cold_dropout`` and once without.
"""

import argparse
import gzip
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.alignment import embed, scorer
from benchmarks.windows import report
from gur_spark.config.file import load_config
from gur_spark.config.pipeline import Config
from gur_spark.events.ingest import ingest
from gur_spark.events.vocabulary import fit_vocabulary
from gur_spark.session import build_session
from gur_spark.snapshots.aggregation import aggregate_snapshots
from gur_spark.snapshots.wanted import find_snapshot
from gur_spark.splits import held_out
from gur_spark.synthetic.files import write
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables
from gur_spark.training.run import train_model

COLD = 0.2
NEIGHBOURS = 10
PROFILE = """logs={{profile: {{kind: attributes, source: {{path: {path}, layout: bulk}}, fields: {{
user_id: {{column: client}}, event_time: {{column: since, format: iso8601}}, categorical: [
{{name: country, column: country}}, {{name: plan, column: plan}},
{{name: interests, column: interests, separator: '|'}}]}}}}}}"""


@dataclass(frozen=True)
class People:
    """The users of the scored date, in the order of its rows."""

    cold: np.ndarray
    persona: np.ndarray
    profile: pd.DataFrame
    """Country, plan and interests, '' where there are none."""

    @property
    def attributes(self) -> np.ndarray:
        """Attributes as one-hot columns, (N, A)."""
        sets = self.profile["interests"].str.get_dummies("|")
        one_hot: np.ndarray = pd.concat([pd.get_dummies(self.profile[["country", "plan"]]), sets], axis=1).to_numpy(
            float
        )
        return one_hot

    @property
    def known(self) -> np.ndarray:
        """Whether a user has a profile."""
        return np.asarray(self.profile["country"] != "")


def main() -> int:
    parser = argparse.ArgumentParser(description="embeddings of users without events")
    parser.add_argument("--users", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--engine", default="sail")
    parser.add_argument("--loss", nargs="*", default=["likelihood"], help="each in turn, such as {future:1}")
    parser.add_argument("--cold-dropout", nargs="*", type=float, default=[0.1, 0.0], help="each in turn")
    parser.add_argument("--json", metavar="OUT")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gur_cold_start_") as work:
        return report(measure(Path(work), args), args.json)


def measure(work: Path, args: argparse.Namespace) -> dict[str, object]:
    write(work / "raw", args.users, args.seed)
    cold = hide_events(work / "raw")
    overrides = [
        f"engine={args.engine}", f"tables.root={work}/tables", f"source.path={work}/raw/landings",
        " ".join(PROFILE.format(path=work / "raw" / "profiles.csv").split()),
    ]  # fmt: skip
    config = load_config("conf/demo.yaml", overrides)
    tables = open_tables(build_session(config), config.tables)
    snapshot = make_snapshots(tables, config, work)
    people = people_of(snapshot, work / "raw", cold)
    places_CK = np.random.default_rng(0).integers(0, (~people.cold).sum(), (people.cold.sum(), NEIGHBOURS))
    found: dict[str, object] = {
        "users": len(people.cold),
        "cold": int(people.cold.sum()),
        "of them without a profile": int((people.cold & ~people.known).sum()),
        "most frequent persona": {"accuracy": most_frequent(people)},
        "attributes": asked(people.attributes, people),
        "random users": alike(people, places_CK),
    }
    for loss, share in product(args.loss, args.cold_dropout):
        changes = [f"model.loss={loss}", f"model.cold_dropout={share}"]
        changed = load_config("conf/demo.yaml", [*overrides, *changes])
        made = train_model(tables, changed, changed.training.as_of)
        x_NL = embed(scorer(made.path), snapshot)
        assert np.isfinite(x_NL).all()
        found[", ".join(changes)] = asked(x_NL, people) | alike(people, nearest(x_NL, people))
    return found


def hide_events(raw: Path) -> set[int]:
    """Take the events of one user in five out of the landings; returns these users."""
    clients = pd.read_csv(raw / "labels.csv")["client"]
    cold = set(clients[held_out(pa.array(clients), COLD, "cold start")])
    for file in (raw / "landings").iterdir():
        lines = gzip.decompress(file.read_bytes()).decode().splitlines(keepends=True)
        kept = [line for line in lines if not line.split(",")[0].isdigit() or int(line.split(",")[0]) not in cold]
        file.write_bytes(gzip.compress("".join(kept).encode(), mtime=0))
    return cold


def make_snapshots(tables: Tables, config: Config, work: Path) -> str:
    """Make the snapshots of training and scoring, with cold users in the latter alone; return its path."""
    for name in config.all_logs:
        ingest(tables, config, uuid4().hex, name=name)
    fit_vocabulary(tables, config, max(config.training.as_of))
    aggregate_snapshots(tables, config, config.training.as_of, uuid4().hex)
    (work / "users").mkdir()
    clients = pd.read_csv(work / "raw" / "labels.csv")["client"]
    pq.write_table(pa.table({"user_id": clients}), work / "users" / "all.parquet")
    everyone = config.aggregates.model_copy(update={"users": str(work / "users")})
    scored: Sequence[date] = config.scoring.as_of
    listed = config.model_copy(update={"aggregates": everyone})
    aggregate_snapshots(tables, listed, scored, uuid4().hex)
    return find_snapshot(tables, config, scored[0]).path


def people_of(snapshot: str, raw: Path, cold: set[int]) -> People:
    users = pq.read_table(f"{snapshot}/data", columns=["user_id"])["user_id"].to_numpy()
    persona = pd.read_csv(raw / "labels.csv").set_index("client")["persona"].loc[users].to_numpy()
    profile = pd.read_csv(raw / "profiles.csv", keep_default_na=False).set_index("client")
    return People(np.isin(users, list(cold)), persona, profile.reindex(users, fill_value=""))


def asked(x_NL: np.ndarray, people: People) -> dict[str, Any]:
    """Ask a persona model of the users with events about cold ones with a profile."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000))
    model.fit(x_NL[~people.cold], people.persona[~people.cold])
    test_N = people.cold & people.known
    p_NK = model.predict_proba(x_NL[test_N])
    return {
        "auc": float(roc_auc_score(people.persona[test_N], p_NK, multi_class="ovr")),
        "accuracy": float(accuracy_score(people.persona[test_N], model.predict(x_NL[test_N]))),
    }


def most_frequent(people: People) -> float:
    """Accuracy of the persona that most users with events have."""
    names, counts = np.unique(people.persona[~people.cold], return_counts=True)
    return float((people.persona[people.cold & people.known] == names[counts.argmax()]).mean())


def nearest(x_NL: np.ndarray, people: People) -> np.ndarray:
    """Find the places of the nearest users with events, for each cold user."""
    found = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(x_NL[~people.cold])
    places: np.ndarray = found.kneighbors(x_NL[people.cold], return_distance=False)
    return places


def alike(people: People, places_CK: np.ndarray) -> dict[str, Any]:
    """Measure how alike cold users with a profile are to these users with events."""
    known = people.known[people.cold]
    cold, warm = people.profile[people.cold], people.profile[~people.cold]
    shares = {
        f"same {name}": float((warm[name].to_numpy()[places_CK] == cold[name].to_numpy()[:, None])[known].mean())
        for name in ("country", "plan")
    }
    sets = [[set(text.split("|")) - {""} for text in side["interests"]] for side in (cold, warm)]
    overlap = [
        len(mine & sets[1][place]) / len(mine | sets[1][place])
        for mine, places, told in zip(sets[0], places_CK, known, strict=True)
        for place in places
        if told and mine
    ]
    return shares | {"common interests": float(np.mean(overlap))}


if __name__ == "__main__":
    sys.exit(main())
