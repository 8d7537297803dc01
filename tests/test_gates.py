"""Gates: moved rows are named and refused, rotated ones pass; a refused publish changes nothing; rollback."""

import json
from argparse import Namespace
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from gur_spark.errors import ConfigError, GateError, TableError
from gur_spark.registry.published import Published, published
from gur_spark.serving.publishing import publish, rollback
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run, record
from jobs import publish as job
from tests.model_rows import add_row

pytestmark = pytest.mark.any_engine

USERS, WIDTH = 400, 6
D1, D2, D3 = date(2024, 6, 1), date(2024, 6, 8), date(2024, 6, 15)


def random(seed: int = 0) -> np.ndarray:
    """Embeddings in a few clusters, so that neighbours mean something."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(8, WIDTH))[np.arange(USERS) % 8] * 3 + rng.normal(size=(USERS, WIDTH))


X = random()
MOVED = X + np.random.default_rng(1).normal(scale=0.1, size=X.shape)
TURN = np.linalg.qr(np.random.default_rng(2).normal(size=(WIDTH, WIDTH)))[0]


@pytest.fixture
def config(make_config: Any) -> Any:
    strict = {"max_norm_ratio": 1.2, "max_psi": 0.25, "max_domain_auc": 0.8, "min_neighbours": 0.4}
    return make_config({"gates": {**strict, "min_rows_share": 0.9}})


def score(tables: Tables, version: str, day: date, x: np.ndarray, first_user: int = 0) -> None:
    rows = {
        "user_id": pa.array(range(first_user, first_user + len(x)), pa.int64()),
        "as_of": pa.array([day] * len(x), pa.date32()),
        "model_version": [version] * len(x),
        "embedding": pa.array(list(x), pa.list_(pa.float32())),
        "events": pa.array([1] * len(x), pa.int64()),
    }
    write_deltalake(tables.folder("embeddings"), pa.table(rows), mode="append")


@pytest.fixture
def first(tables: Tables, config: Any) -> None:
    score(tables, "one", D1, X)
    publish(tables, config, "one", D1, "first")


@pytest.mark.parametrize(
    ("version", "after", "failed"),
    [
        ("one", MOVED, []),
        ("one", X[: USERS // 2], ["rows, as a share of those published, 0.500, expected at least 0.9"]),
        ("one", X * 1.3, ["norm ratio 1.300, expected at most 1.2"]),
        ("one", X + 2, ["PSI of projections", "domain classifier AUC"]),
        ("one", X[np.random.default_rng(4).permutation(USERS)], ["share of neighbours kept"]),
        # Another version has axes of its own: it may rotate, but must keep the neighbours.
        ("two", MOVED @ TURN + 5, []),
        ("two", random(9), ["share of neighbours kept"]),
    ],
)
def test_what_moved_is_named_and_changes_nothing(
    tables: Tables, config: Any, first: None, version: str, after: np.ndarray, failed: list[str]
) -> None:
    score(tables, version, D2, after)
    if not failed:
        done = publish(tables, config, version, D2, "weekly")
        assert done.rows == {"embeddings": len(after)}
        assert done.outcomes
        assert all(outcome.passed for outcome in done.outcomes)
        assert published(tables, config.name) == Published(model_version=version, as_of=D2)
        return
    with pytest.raises(GateError) as error, record(tables, "publish", {}):
        publish(tables, config, version, D2, "weekly")
    [run] = tables.read("runs").collect()
    assert run.outputs["gates asked of"] == f"{version} at {D2}"
    assert {one["passed"] for one in json.loads(run.outputs["gates"])} >= {False}
    assert all(gate in str(error.value) for gate in failed), error.value
    assert published(tables, config.name) == Published(model_version="one", as_of=D1)
    publish(tables, config, version, D2, "the shop moved", force=True)
    kept = tables.read("published").where(f"as_of = DATE'{D2}'").collect()[0]["reason"]
    assert kept.startswith("the shop moved (forced, although")
    assert failed[0] in kept


def test_a_version_that_was_aligned_is_compared_in_the_space_it_shares(
    tables: Tables, config: Any, first: None
) -> None:
    for version, to in (("two", "one"), ("three", "two")):
        add_row(tables, version, aligned_to=to)
    score(tables, "three", D2, X + 2)
    with pytest.raises(GateError, match="PSI of projections"):
        publish(tables, config, "three", D2, "monthly")


def test_without_users_in_common_nothing_can_be_compared(tables: Tables, config: Any, first: None) -> None:
    score(tables, "one", D2, X, first_user=10_000)
    with pytest.raises(GateError, match=r"users in common 0\.000, expected at least 200"):
        publish(tables, config, "one", D2, "weekly")


def test_a_gate_that_is_switched_off_is_not_asked(tables: Tables, config: Any, first: None, make_config: Any) -> None:
    score(tables, "one", D2, X[:300] * 9)
    off = dict.fromkeys(("min_rows_share", "max_norm_ratio", "max_psi", "max_domain_auc", "min_neighbours"))
    done = publish(tables, make_config({"gates": off}), "one", D2, "weekly")
    assert (done.rows, list(done.outcomes)) == ({"embeddings": 300}, [])


def test_a_rollback_goes_one_further_back_each_time(tables: Tables, config: Any, first: None) -> None:
    for version, day in (("one", D2), ("two", D3)):
        score(tables, version, day, MOVED)
        publish(tables, config, version, day, "weekly")
    run = Run(id="run", job="publish", parameters={})
    args = Namespace(reason="two is odd", rollback=True, force=False, model=None, as_of=None)
    job.stage(tables, config, args, run)
    assert published(tables, config.name) == Published(model_version="one", as_of=D2)
    assert (run.inputs["before"], run.outputs["published"]) == (f"two at {D3}", f"one at {D2}")
    assert rollback(tables, config.name, "so is this") == Published(model_version="one", as_of=D1)
    reasons = [row["reason"] for row in tables.read("published").orderBy("switched_at").collect()]
    assert reasons[-2:] == [f"rollback of two at {D3}: two is odd", f"rollback of one at {D2}: so is this"]
    with pytest.raises(TableError, match="nothing was published for pipeline 'test' before what is published now"):
        rollback(tables, config.name, "again")
    # A version that was rolled back can be published again, and rolled back.
    publish(tables, config, "two", D3, "it was not odd")
    assert rollback(tables, config.name, "it was") == Published(model_version="one", as_of=D1)


def test_force_and_rollback_need_a_reason(tables: Tables, config: Any, first: None) -> None:
    for force in (True, False):
        args = Namespace(reason=None, rollback=not force, force=force, model=None, as_of=None)
        with pytest.raises(ConfigError, match="need a --reason"):
            job.stage(tables, config, args, Run(id="run", job="publish", parameters={}))
