"""Rules that hold for every kind of model in the catalogue, on both engines."""

import pickle
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from gur_spark.errors import ConfigError, ModelError
from gur_spark.models.catalogue import MODULES
from gur_spark.models.kind import Capability, Form, seen_until
from gur_spark.monitoring.monitor import monitor
from gur_spark.outputs.catalogue import OUTPUTS, find_output
from gur_spark.registry.artefact import load_model, unpack
from gur_spark.registry.files import CONTENT, WEIGHTS, pack
from gur_spark.registry.fit import check_fit
from gur_spark.registry.known import find_model
from gur_spark.registry.known import seen_until as seen_until_of
from gur_spark.registry.published import Published, published
from gur_spark.serving.live import refresh
from gur_spark.serving.publishing import publish, rollback
from gur_spark.serving.scoring import score_snapshot
from gur_spark.training.fit import LearnerModule
from gur_spark.training.run import train_model
from tests.kinds.conftest import EARLIER, SCORED_AT, TRAINED_ON, Piped, config_for, events_of, piped
from tests.test_snapshots import run_id

pytestmark = pytest.mark.both_engines

TOLERANCE = 1e-6
"""The largest difference that batch mates may make to a number."""


def numbers(rows: pa.RecordBatch | pa.Table) -> np.ndarray:
    """All floating-point numbers of an output's rows, by user."""
    lists = rows["embedding"] if "embedding" in rows.schema.names else rows["items"]
    flat = lists.combine_chunks().flatten() if isinstance(lists, pa.ChunkedArray) else lists.flatten()
    values = flat if pa.types.is_floating(flat.type) else flat.field("score")
    return np.asarray(values.to_numpy(zero_copy_only=False))


def scored(pipeline: Piped, rows: pa.RecordBatch) -> np.ndarray:
    return numbers(pipeline.model.scorer.score(rows)[pipeline.output])


def stored(pipeline: Piped) -> pa.Table:
    found = find_output(pipeline.output).select(pipeline.tables, pipeline.version.version, SCORED_AT)
    return found.toArrow().sort_by("user_id")


def test_what_a_kind_says_of_itself_is_what_the_pipeline_knows(pipeline: Piped) -> None:
    kind, card = pipeline.kind, pipeline.model.card
    assert MODULES[kind.name]
    assert set(kind.writes) <= OUTPUTS.keys()
    assert pipeline.version.version.startswith(f"{kind.name}-")
    assert (card.kind, card.outputs, card.training_dates) == (kind.name, kind.writes, (str(EARLIER), str(TRAINED_ON)))
    row = find_model(pipeline.tables, pipeline.config, pipeline.version.version)
    assert (row.kind, tuple(row.outputs)) == (kind.name, kind.writes)
    assert pipeline.config.model.title()
    assert list(pipeline.config.model.learned())


@pytest.mark.parametrize("name", sorted(MODULES))
def test_importing_a_kind_brings_in_neither_spark_nor_torch(name: str) -> None:
    asked = f"import sys; import {MODULES[name]}; print(sorted({{'torch', 'pyspark', 'lightning'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_artefact_holds_no_pickle_and_none_is_read(pipeline: Piped, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a pickle was read")

    expected = scored(pipeline, pipeline.rows())
    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refused)
    np.testing.assert_array_equal(scored(pipeline, pipeline.rows()), expected)


def test_a_version_gives_the_same_bits_whenever_it_is_loaded(pipeline: Piped) -> None:
    rows = pipeline.rows()
    travelled = unpack(pack(pipeline.version.path)).scorer.score(rows)[pipeline.output]
    np.testing.assert_array_equal(numbers(travelled), scored(pipeline, rows))


def test_a_users_row_does_not_depend_on_batch_mates(pipeline: Piped) -> None:
    rows = pipeline.rows()
    width = len(scored(pipeline, rows.slice(0, 1)))
    whole = scored(pipeline, rows).reshape(rows.num_rows, -1)
    assert np.isfinite(whole).all()
    assert whole.shape[1] == width
    alone = np.stack([scored(pipeline, rows.slice(n, 1)) for n in range(0, rows.num_rows, 9)])
    np.testing.assert_allclose(alone, whole[::9], atol=TOLERANCE, rtol=0)
    shuffled = np.random.default_rng(0).permutation(rows.num_rows)
    mixed = scored(pipeline, rows.take(pa.array(shuffled))).reshape(rows.num_rows, -1)
    np.testing.assert_allclose(mixed, whole[shuffled], atol=TOLERANCE, rtol=0)


def test_the_table_holds_what_the_scorer_gives_one_row_per_user(pipeline: Piped) -> None:
    rows, table = pipeline.rows(), stored(pipeline)
    assert table["user_id"].to_pylist() == rows["user_id"].to_pylist()
    np.testing.assert_allclose(numbers(table), scored(pipeline, rows), atol=TOLERANCE, rtol=0)
    assert set(table["as_of"].to_pylist()) == {SCORED_AT}


def test_events_at_or_after_the_date_change_nothing(pipeline: Piped, spark: Any, tmp_path: Path) -> None:
    """The rows of a date are those of a log that ends there; what training sees ends at ``seen_until``."""
    end = max(seen_until([TRAINED_ON], pipeline.config.model), SCORED_AT)
    before = [event for event in events_of() if event[1].date() < end]
    assert len(before) < len(events_of())
    other = piped(spark, pipeline.kind.name, tmp_path, before)
    assert other.snapshot.checksum == pipeline.snapshot.checksum
    assert other.version.version[-8:] == pipeline.version.version[-8:]
    np.testing.assert_array_equal(numbers(stored(other)), numbers(stored(pipeline)))


def test_a_version_says_until_when_it_saw_events(pipeline: Piped) -> None:
    expected = TRAINED_ON + timedelta(days=pipeline.config.model.looks_ahead_days())
    assert seen_until_of(pipeline.tables, pipeline.version.version) == expected


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_killed_training_goes_on_and_ends_as_one_that_was_not(
    pipeline: Piped, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, trained = LearnerModule.training_step, []

    def counted(self: Any, batch: Any, number: int) -> Any:
        trained.append(self.current_epoch)
        if self.current_epoch == epoch and len(trained) < 1_000 and not resumed:
            raise KeyboardInterrupt
        return step(self, batch, number)

    resumed = False
    monkeypatch.setattr(LearnerModule, "training_step", counted)
    with pytest.raises(BaseException):  # noqa: B017,PT011 Lightning turns an interrupt into its own exit
        train_model(pipeline.tables, pipeline.config, pipeline.config.training.as_of)
    resumed = True
    trained.clear()
    made = train_model(pipeline.tables, pipeline.config, pipeline.config.training.as_of)
    assert min(trained) == epoch
    assert pack(made.path)[WEIGHTS] == pack(pipeline.version.path)[WEIGHTS]


@pytest.mark.slow
def test_two_processes_train_a_version_that_scores(pipeline: Piped, spark: Any, tmp_path: Path) -> None:
    groups = 2
    made = piped(spark, pipeline.kind.name, tmp_path, events_of(), processes=groups)
    assert np.isfinite(numbers(stored(made))).all()
    assert len(stored(made)) == len(stored(pipeline))


def test_snapshots_of_another_form_manifest_or_vocabulary_are_refused(pipeline: Piped) -> None:
    model, snapshot = pipeline.model, pipeline.snapshot
    check_fit(model, snapshot)
    others = [form for form in type(snapshot.form) if form is not snapshot.form]
    with pytest.raises(ModelError, match=f"reads {snapshot.form}; the snapshot of {SCORED_AT} has the form"):
        check_fit(model, replace(snapshot, form=others[0]))
    with pytest.raises(ModelError, match=r"vocabulary .* the snapshot of .* has \d+ \(other\)"):
        check_fit(model, replace(snapshot, vocabulary_hash="other"))
    changed = pipeline.config.model_copy(
        update={"aggregates": pipeline.config.aggregates.model_copy(update={"windows": [5, 90]}),
                "sequences": pipeline.config.sequences.model_copy(update={"max_events": 7})}
    )  # fmt: skip
    other = Piped(pipeline.kind, pipeline.tables, changed, snapshot, pipeline.version)
    [made] = other.make([TRAINED_ON])
    with pytest.raises(ModelError, match="was trained on manifest"):
        check_fit(model, made)
    pipeline.make([TRAINED_ON])


def test_ids_outside_the_vocabulary_are_refused(pipeline: Piped) -> None:
    rows = pipeline.rows()
    name = next(n for n in rows.schema.names if pa.types.is_list(rows.schema.field(n).type) and n.startswith("mcc"))
    lists = rows[name]
    beyond = pa.ListArray.from_arrays(lists.offsets, pa.array(np.full(len(lists.flatten()), 999, np.int32)))
    with pytest.raises(ModelError, match="999"):
        pipeline.model.scorer.score(rows.set_column(rows.schema.get_field_index(name), name, beyond))


def test_a_missing_column_is_named(pipeline: Piped) -> None:
    rows = pipeline.rows()
    name = next(n for n in pipeline.model.scorer.columns if n.startswith("mcc"))
    with pytest.raises(ModelError, match=name):
        pipeline.model.scorer.score(rows.drop_columns([name]))


@pytest.mark.parametrize("name", CONTENT)
def test_a_damaged_artefact_is_refused(pipeline: Piped, name: str, tmp_path: Path) -> None:
    files = {**pack(pipeline.version.path), name: b"damaged"}
    with pytest.raises(ModelError, match=f"{name} was altered or cut short"):
        unpack(files)


def test_scoring_twice_gives_equal_rows(pipeline: Piped) -> None:
    before = stored(pipeline)
    score_snapshot(pipeline.tables, pipeline.config, pipeline.snapshot, pipeline.version.path, run_id())
    assert stored(pipeline).equals(before)


def test_embeddings_are_copied_or_it_is_said_why_not(pipeline: Piped) -> None:
    tables, config, path = pipeline.tables, pipeline.config, pipeline.version.path
    scoring = config.scoring.model_copy(update={"changed_only": True})
    changed_only = config.model_copy(update={"scoring": scoring})
    before = stored(pipeline)
    if Capability.COPYING in pipeline.kind.can:
        done = score_snapshot(tables, config, pipeline.snapshot, path, run_id(), changed_since=SCORED_AT)
        assert done.account.counts[f"copied {SCORED_AT}"] == len(before)
    else:
        with pytest.raises(ModelError, match=f"is of kind '{pipeline.kind.name}', whose embeddings cannot be copied"):
            score_snapshot(tables, config, pipeline.snapshot, path, run_id(), changed_since=SCORED_AT)
        done = score_snapshot(tables, changed_only, pipeline.snapshot, path, run_id())
        assert done.account.inputs[f"changed since {SCORED_AT}"].startswith("everyone: ")
    assert stored(pipeline).equals(before)


def test_only_a_kind_that_can_embeds_users_between_two_mornings(pipeline: Piped) -> None:
    tables, config = pipeline.tables, pipeline.config
    publish(tables, config, pipeline.version.version, SCORED_AT, "live", force=True)
    if Capability.LIVE in pipeline.kind.can:
        refresh(tables, config, run_id())
        assert tables.exists("embeddings_now")
    else:
        with pytest.raises(ConfigError, match="whose users cannot be embedded between two mornings"):
            refresh(tables, config, run_id())


def test_a_date_is_monitored_by_what_the_kind_reads(pipeline: Piped) -> None:
    drift = monitor(pipeline.tables, pipeline.config, SCORED_AT, run_id(), version=pipeline.version.version)
    features = {finding.subject for finding in drift.findings if finding.kind == "feature"}
    assert {d.column for d in drift.distributions} == features
    assert {"recency_days", "mcc" if pipeline.kind.reads is Form.SEQUENCES else "mcc_counts_30d"} <= features
    assert drift.reference == f"training of {pipeline.version.version}"


def test_a_version_is_published_and_rolled_back(pipeline: Piped) -> None:
    tables, config = pipeline.tables, pipeline.config
    done = publish(tables, config, pipeline.version.version, SCORED_AT, "first")
    assert done.rows == dict.fromkeys(pipeline.kind.writes, len(stored(pipeline)))
    [earlier] = pipeline.make([TRAINED_ON])
    score_snapshot(tables, config, earlier, pipeline.version.path, run_id())
    publish(tables, config, pipeline.version.version, TRAINED_ON, "second", force=True)
    assert published(tables, config.name) == Published(model_version=pipeline.version.version, as_of=TRAINED_ON)
    back = rollback(tables, config.name, "it was wrong")
    assert published(tables, config.name) == back == Published(model_version=pipeline.version.version, as_of=SCORED_AT)


def test_the_untrained_encoder_is_another_one_and_the_same_for_a_seed(pipeline: Piped) -> None:
    rows, artefact = pipeline.rows(), load_model(pipeline.version.path).artefact
    made = [numbers(pipeline.kind.untrained(artefact, seed).score(rows)[pipeline.output]) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
    assert not np.array_equal(made[0], scored(pipeline, rows))


def test_a_configuration_of_the_kind_survives_its_artefact(pipeline: Piped) -> None:
    assert pipeline.model.model == pipeline.config.model
    assert config_for(pipeline.kind.name, Path("unused")).model == pipeline.config.model
