"""Two pipelines over one set of tables, with equal manifests and different vocabularies."""

from argparse import Namespace
from datetime import timedelta
from typing import Any

import pytest

from gur_spark.errors import SnapshotError
from gur_spark.events.vocabulary import fit_vocabulary, read_vocabulary
from gur_spark.models.kind import VocabularyRef
from gur_spark.monitoring.monitor import monitor
from gur_spark.outputs.embeddings import select_embeddings
from gur_spark.registry.known import find_model
from gur_spark.serving.stale import stale_after
from gur_spark.snapshots.aggregation import aggregate_snapshot
from gur_spark.snapshots.visible import Snapshot, visible_snapshots
from gur_spark.snapshots.wanted import find_snapshot
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run
from jobs import score
from tests.model_rows import registered_version
from tests.test_snapshots import AS_OF, event, log, write

pytestmark = [pytest.mark.any_engine, pytest.mark.usefixtures("vocabulary")]


@pytest.fixture
def pipelines(tables: Tables, make_config: Any) -> tuple[Any, Any]:
    """Configurations of two pipelines; the model of the second has a newer vocabulary."""
    first = make_config({"vocabulary": {"min_count": 1}, "model": {"latent_dim": 4}})
    second = first.model_copy(update={"name": "second"})
    version_of(tables, first, 1)
    write(tables, [*log(), event(1, timedelta(days=2), "new", 5)])
    assert fit_vocabulary(tables, second).version == 2
    version_of(tables, second, 2)
    return first, second


def version_of(tables: Tables, config: Any, version: int) -> None:
    """Register an untrained version with a vocabulary."""
    found = read_vocabulary(tables, version)
    ref = VocabularyRef(version=version, hash=found.hash, sizes=found.sizes)
    registered_version(tables, config.name, model=config.model, manifest=config.manifest(), vocabulary=ref)


def aggregate(tables: Tables, config: Any, vocabulary: int) -> Snapshot:
    return aggregate_snapshot(tables, config, AS_OF, f"{config.name}{vocabulary}", vocabulary)


def scored(tables: Tables, config: Any) -> str:
    """Score the date by the job; returns the folder of the snapshot that it read."""
    run = Run(id=config.name, job="score", parameters={})
    score.stage(tables, config, Namespace(as_of=[AS_OF], model=None, force=None, changed_since=None), run)
    return run.inputs[f"snapshot {AS_OF}"]


def test_two_vocabularies_of_one_date_and_manifest_stand_beside_one_another(
    tables: Tables, pipelines: tuple[Any, Any]
) -> None:
    made = [aggregate(tables, config, number) for number, config in enumerate(pipelines, 1)]
    assert sorted(visible_snapshots(tables), key=lambda s: s.vocabulary_version) == made
    for config, own in zip(pipelines, made, strict=True):
        assert scored(tables, config) == own.path
        version = find_model(tables, config).model_version
        assert select_embeddings(tables, version, AS_OF).count() == own.rows
        drift = monitor(tables, config, AS_OF, config.name, against=AS_OF)
        assert drift.inputs[f"snapshot {AS_OF}"] == own.path


def test_a_snapshot_of_another_vocabulary_alone_is_refused_with_the_command(
    tables: Tables, pipelines: tuple[Any, Any]
) -> None:
    first, second = pipelines
    aggregate(tables, first, 1)
    with pytest.raises(
        SnapshotError,
        match=rf"of {AS_OF} have vocabulary 1 .*needed is vocabulary 2 .*run aggregate --as-of {AS_OF} --vocab.* 2",
    ):
        scored(tables, second)


def test_without_a_model_the_vocabulary_counts_that_was_asked_for_last(
    tables: Tables, pipelines: tuple[Any, Any]
) -> None:
    first, _ = pipelines
    old, new = aggregate(tables, first, 1), aggregate(tables, first, 2)
    assert find_snapshot(tables, first, AS_OF) == new
    assert aggregate(tables, first, 1) == old, "it was made already"
    assert find_snapshot(tables, first, AS_OF) == old
    assert len(visible_snapshots(tables)) == 2


def test_the_commands_for_stale_snapshots_name_the_vocabulary_of_each(
    tables: Tables, pipelines: tuple[Any, Any]
) -> None:
    for number, config in enumerate(pipelines, 1):
        aggregate(tables, config, number)
    commands = stale_after(tables, pipelines[0], [str(AS_OF - timedelta(days=2))]).commands
    assert commands == [f"aggregate --as-of {AS_OF} --vocabulary {version}" for version in (1, 2)]
