"""A report on a version's life: gates as they were asked, and spaces with the loss of their consumers."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gur_spark.errors import GateError
from gur_spark.evaluate.lifecycle import gate_decisions, shared_spaces
from gur_spark.registry.names import VersionName
from gur_spark.spaces.mapping import LinearMap
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import record
from jobs import publish as job
from tests.model_rows import add_row
from tests.test_gates import D1, D2, MOVED, USERS, WIDTH, X, score

pytestmark = pytest.mark.any_engine


@pytest.fixture
def config(make_config: Any) -> Any:
    return make_config({"gates": {"max_norm_ratio": 1.2, "min_rows_share": 0.9}})


def publish_recorded(tables: Tables, config: Any, version: str, day: Any, force: bool = False) -> None:
    asked = Namespace(model=version, as_of=day, reason="weekly", force=force, rollback=False)
    with record(tables, "publish", {}) as run:
        job.stage(tables, config, asked, run)


def test_every_time_that_gates_were_asked_is_told_in_order(tables: Tables, config: Any) -> None:
    for version, day, x in (("one", D1, X), ("one", D2, X * 1.3), ("two", D2, MOVED)):
        score(tables, version, day, x)
    for version in ("one", "two"):
        add_row(tables, version)
    publish_recorded(tables, config, "one", D1)
    assert gate_decisions(tables, "one") == []
    with pytest.raises(GateError):
        publish_recorded(tables, config, "one", D2)
    publish_recorded(tables, config, "one", D2, force=True)
    publish_recorded(tables, config, "two", D2)
    refused, forced = gate_decisions(tables, "one")
    assert (refused.of, refused.published, forced.published) == (f"one at {D2}", False, True)
    assert refused.gates == forced.gates
    found = {gate["gate"]: gate["passed"] for gate in refused.gates}
    assert found["norm ratio"] is False
    assert found["rows, as a share of those published,"] is True
    [other] = gate_decisions(tables, "two")
    assert other.published
    assert all(gate["passed"] for gate in other.gates)


def register(tables: Tables, version: str, aligned_to: str | None, residual: float | None) -> Path:
    """A row of ``models``; its artefact's folder."""
    path = Path(tables.folder("artefacts", version))
    path.mkdir(parents=True)
    metrics = {} if residual is None else {"alignment_residual": residual, "alignment_users": 300.0}
    add_row(tables, version, path=str(path), aligned_to=aligned_to, metrics=metrics)
    return path


def test_spaces_have_their_residual_and_what_consumers_lose_where_both_were_scored(tables: Tables, config: Any) -> None:
    for version in ("zero", "one"):
        register(tables, version, None, None)
    path = register(tables, "two", aligned_to="one", residual=0.25)
    identity = LinearMap(matrix_NO=np.eye(WIDTH), shift_O=np.zeros(WIDTH), residual=0.5, users=200)
    (path / "maps").mkdir()
    (path / "maps" / "zero.json").write_text(identity.to_json())
    # Aligned, the rows are those of the older version; mapped, they are turned around and lose all there is to know.
    score(tables, "one", D1, X)
    score(tables, "two", D1, X)
    score(tables, "zero", D1, X)
    score(tables, str(VersionName.parse("two").mapped_to("zero")), D1, -X)
    # As the embedding has it: above or below the middle of its first number.
    kinds = ["high" if x > np.median(X[:, 0]) else "low" for x in X[:, 0]]
    label = tables.spark.createDataFrame(list(zip(range(USERS), kinds, strict=True)), "user_id LONG, label STRING")
    aligned, mapped = shared_spaces(tables, config.evaluation, "two", D1, "kind", label)
    assert (aligned.version, aligned.how, aligned.residual, aligned.users) == ("one", "aligned", 0.25, 300)
    assert (aligned.task, aligned.consumer_loss) == ("kind", 0.0)
    assert (mapped.version, mapped.how, mapped.residual, mapped.users) == ("zero", "mapped", 0.5, 200)
    assert mapped.consumer_loss is not None
    assert mapped.consumer_loss > 0.9
    # Aligned through another, it shares the first one's space, too; mapped rows do not stand in for aligned ones.
    register(tables, "three", aligned_to="two", residual=0.1)
    score(tables, "three", D1, X)
    score(tables, str(VersionName.parse("three").mapped_to("one")), D1, -X)
    chain = shared_spaces(tables, config.evaluation, "three", D1, "kind", label)
    assert [(space.version, space.residual, space.consumer_loss) for space in chain] == [
        ("two", 0.1, 0.0), ("one", None, 0.0),
    ]  # fmt: skip
    # At a date that the older ones were not scored at, and without a task, nothing is said of it.
    assert [space.consumer_loss for space in shared_spaces(tables, config.evaluation, "two", D2, "kind", label)] == [
        None,
        None,
    ]
    assert [space.task for space in shared_spaces(tables, config.evaluation, "two", D1, None, None)] == [None, None]
    assert shared_spaces(tables, config.evaluation, "one", D1, "kind", label) == []
