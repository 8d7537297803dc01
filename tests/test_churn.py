"""The churn example from events to predictions: it is kept in its space, and trained anew, or refused, in another."""

import shutil
from argparse import Namespace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from gur_spark.consumers import churn
from gur_spark.consumers.churn import ChurnModel, fit, predict_churn, read_model
from gur_spark.errors import ConsumerError, ModelError, TableError
from gur_spark.models.gur.scorer import GurScorer
from gur_spark.models.kind import VocabularyRef
from gur_spark.registry.artefact import Origin, load_model
from gur_spark.registry.known import register
from gur_spark.registry.published import Published, switch
from gur_spark.snapshots.aggregation import aggregate_snapshots
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables
from gur_spark.tables.runs import Run
from gur_spark.training.version import TrainedVersion
from jobs import churn_example
from tests import embedded
from tests.conftest import config_over
from tests.model_rows import registered_version
from tests.test_snapshots import Event, write
from tests.versions import trained_version

pytestmark = pytest.mark.any_engine

LEARN, NOW = date(2024, 6, 1), date(2024, 7, 1)
USERS = 60


def new_run() -> Run:
    return Run(id="run", job="churn_example", parameters={})


def log() -> list[Event]:
    """Everyone is active in May; every third user, who spends little, is gone in June."""
    rows = []
    for user in range(USERS):
        loyal = user % 3 != 0
        for day in range(1 + user % 4, 60 if loyal else 31, 3):
            time = datetime(2024, 5, 2, 12, tzinfo=UTC) + timedelta(days=day - 1, minutes=user)
            rows.append((user, time, time.date(), "ab"[loyal], 900 if loyal else 100))
    return rows


Made = tuple[Tables, Any, dict[str, str]]


@pytest.fixture(scope="module")
def made(spark: Any, fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Tables, config, and three versions: ``first``, ``aligned`` to it (scored now only), and ``other``."""
    config = config_over(
        tmp_path_factory.mktemp("churn"),
        vocabulary={"min_count": 1},
        aggregates={"windows": [7, 30]},
        model={"latent_dim": 4},
        training={"epochs": 1, "device": "cpu", "validation_share": 0.3},
    )
    tables = open_tables(spark, config.tables)
    write(tables, log())
    shutil.copytree(fitted, tables.folder("vocabulary"))
    snapshots = {s.as_of: s for s in aggregate_snapshots(tables, config, [LEARN, NOW], "run").snapshots}
    versions: dict[str, TrainedVersion] = {}
    for seed, (name, days) in enumerate({"first": [LEARN, NOW], "aligned": [NOW], "other": [LEARN, NOW]}.items()):
        align_to = versions["first"].path if name == "aligned" else None
        versions[name] = trained(tables, config, snapshots[LEARN], seed, align_to)
        for day in days:
            embed(tables, versions[name], snapshots[day])
    return tables, config, {name: model.version for name, model in versions.items()}


def trained(tables: Tables, config: Any, snapshot: Snapshot, seed: int, align_to: str | None) -> TrainedVersion:
    """As the train job does, which reads tables for longer than it trains on so few users."""
    vocabulary = VocabularyRef(version=snapshot.vocabulary_version, hash=snapshot.vocabulary_hash, sizes={"mcc": 6})
    training = config.training.model_copy(update={"seed": seed})
    made = trained_version(
        [snapshot.path], tables.root, config.model, training, vocabulary=vocabulary, align_to=align_to
    )
    register(tables, config.name, made.card, made.path, made.manifest_hash, vocabulary, made.metrics)
    return made


def publish(tables: Tables, config: Any, version: str, reason: str = "monthly") -> None:
    switch(tables, config.name, Published(model_version=version, as_of=NOW), ("embeddings",), reason)


def embed(tables: Tables, made: TrainedVersion, snapshot: Snapshot) -> None:
    """As the score job does."""
    rows = pq.read_table(snapshot.data).combine_chunks().to_batches()[0]
    scorer = load_model(made.path).scorer
    assert isinstance(scorer, GurScorer)
    x_NL = scorer.vectors(rows)
    embedded.add(tables, made.version, snapshot.as_of, rows["user_id"], x_NL, events=rows["events_30d"])


def predictions(tables: Tables) -> dict[tuple[str, str], dict[int, float]]:
    """By the version scored and the one trained on, the probability of each user; no user stands twice."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for row in tables.read("predictions").collect():
        assert row.as_of == NOW
        of = found.setdefault((row.model_version, row.trained_on), {})
        assert row.user_id not in of
        of[row.user_id] = row.probability
    return found


def by_hand(tables: Tables, model: ChurnModel, version: str) -> dict[int, float]:
    rows = tables.read("embeddings").where(f"model_version = '{version}' AND as_of = DATE'{NOW}'").collect()
    odds = {row.user_id: np.dot(row.embedding, model.weights) + model.bias for row in rows if row.events}
    return {user: 1 / (1 + np.exp(-value)) for user, value in odds.items()}


def test_a_model_is_kept_where_the_space_stays_and_refused_or_trained_anew_where_it_does_not(made: Made) -> None:
    tables, config, versions = made
    first, aligned, other = versions["first"], versions["aligned"], versions["other"]
    with pytest.raises(TableError, match="nothing is published for pipeline 'test'"):
        predict_churn(tables, config)

    publish(tables, config, first, "first")
    made_first = predict_churn(tables, config)
    model = made_first.model
    assert (model.trained_on, model.space, model.label_dates) == (first, first, (str(LEARN),))
    assert made_first.account.inputs == {"embeddings": f"{first} at {NOW}", "churn model": f"trained on {first}"}
    expected = {(first, first): pytest.approx(by_hand(tables, model, first))}
    assert predictions(tables) == expected
    active = {user for user, time, *_ in log() if time >= datetime(2024, 6, 1, tzinfo=UTC)}
    assert set(predictions(tables)[first, first]) == active

    publish(tables, config, aligned)
    assert predict_churn(tables, config, on_switch="refuse").model == model
    expected[aligned, first] = pytest.approx(by_hand(tables, model, aligned))
    assert predictions(tables) == expected

    publish(tables, config, other)
    with pytest.raises(ConsumerError, match=f"cannot score {other}: its embeddings are in the space of {other}"):
        predict_churn(tables, config, on_switch="refuse")
    assert (read_model(tables, config.name), predictions(tables)) == (model, expected)

    args = {"as_of": None, "label_dates": [], "on_switch": "retrain", "retrain": False}
    churn_example.stage(tables, config, Namespace(**args), new_run())
    anew = read_model(tables, config.name)
    assert anew is not None
    assert (anew.trained_on, anew.space) == (other, other)
    expected[other, other] = pytest.approx(by_hand(tables, anew, other))
    assert predictions(tables) == expected

    # Once more: the same rows, and no others touched.
    assert predict_churn(tables, config).model == anew
    assert predictions(tables) == expected


def test_a_version_that_no_early_enough_date_was_scored_with_says_what_to_run(made: Made) -> None:
    tables, config, versions = made
    publish(tables, config, versions["aligned"])
    with pytest.raises(ConsumerError, match=rf"scored at \['{NOW}'\], .* up to 2024-06-03, whose 28 days are known"):
        predict_churn(tables, config, retrain=True)
    with pytest.raises(ConsumerError, match=f"28 days from {NOW} on is not known on {NOW}"):
        predict_churn(tables, config, retrain=True, label_dates=[NOW])


def test_dates_whose_labels_land_later_or_were_trained_on_are_not_learned_from(made: Made, monkeypatch: Any) -> None:
    tables, config, versions = made
    publish(tables, config, versions["first"])
    # 1 June and 28 days end on 29 June, and are known on the morning of the date after the delay.
    for days, known in ((2, True), (3, False)):
        delayed = config.model_copy(update={"aggregates": config.aggregates.model_copy(update={"delay_days": days})})
        assert (churn._last_known(NOW, 28, days) >= LEARN) == known
    with pytest.raises(ConsumerError, match=r"a date from 2024-06-01 on, .* and up to 2024-05-31, whose 28 days"):
        predict_churn(tables, delayed, retrain=True)
    monkeypatch.setattr(churn, "seen_until", lambda _tables, _version: LEARN + timedelta(days=1))
    with pytest.raises(ConsumerError, match="expected a date from 2024-06-02 on, where its training ended, and up to"):
        predict_churn(tables, config, retrain=True)
    with pytest.raises(ConsumerError, match="trained on events before 2024-06-02: its embeddings at 2024-06-01"):
        predict_churn(tables, config, retrain=True, label_dates=[LEARN])


def test_a_version_that_does_not_say_until_when_it_was_trained_is_not_learned_from(made: Made) -> None:
    tables, config, _ = made
    silent = Path(registered_version(tables, config.name, origin=Origin(snapshots=(), dates=(), seen_until=None))).name
    embedded.add(tables, silent, NOW, [1], np.ones((1, 4)))
    publish(tables, config, silent)
    with pytest.raises(ModelError, match=f"the card of {silent} does not say until when its training saw events"):
        predict_churn(tables, config, retrain=True)


def test_weights_are_those_of_the_columns_as_they_are() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3)) * [1, 5, 0.1] + [0, 9, 0]
    x = np.column_stack([x, np.ones(80)])
    churned = rng.random(80) < 1 / (1 + np.exp(-x[:, 0] - 3 * x[:, 2]))
    weights, bias = fit(x, churned)
    trusted = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000)).fit(x, churned)
    np.testing.assert_allclose(1 / (1 + np.exp(-x @ weights - bias)), trusted.predict_proba(x)[:, 1])
    with pytest.raises(ConsumerError, match="0 of 80 users churned: there is nothing to tell apart"):
        fit(x, np.zeros(80, bool))
