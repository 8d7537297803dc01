"""MLflow: a version is logged completely, once; a store that fails does it no harm."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from gur_spark.config.tracking import Tracking
from gur_spark.errors import MissingExtra, TrackingError
from gur_spark.registry.artefact import load_model
from gur_spark.registry.tracking import log_version, track
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run
from gur_spark.training import run as training
from gur_spark.training.version import TrainedVersion
from jobs import train
from tests.test_registry import saved
from tests.test_train_job import DAYS, LITERAL, stub


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    """A database of its own: MLflow takes seconds to make one."""
    folder = tmp_path_factory.mktemp("mlflow")
    return Tracking(store=f"sqlite:///{folder}/mlflow.db")


def client(store: Tracking) -> MlflowClient:
    return MlflowClient(tracking_uri=store.store, registry_uri=store.store)


def runs(store: Tracking, pipeline: str) -> list[Any]:
    experiment = client(store).get_experiment_by_name(pipeline)
    return list(client(store).search_runs([experiment.experiment_id]))


def test_a_version_is_logged_once_with_parameters_losses_of_each_epoch_files_and_a_registered_version(
    store: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path / "artefacts")
    said = log_version(store, "shop", path)
    assert log_version(store, "shop", path) == said
    [run] = runs(store, "shop")
    assert said == f"run {run.info.run_id}, shop version 1"
    assert (run.info.run_name, run.info.status) == (Path(path).name, "FINISHED")
    assert run.data.params["model.latent_dim"] == "6"
    assert run.data.params["training.seed"] == "1"
    assert run.data.params["vocabulary.hash"] == "abc"
    assert run.data.tags["gur_spark.model_version"] == Path(path).name
    assert run.data.tags["gur_spark.training_dates"] == "2024-05-01, 2024-06-01"
    assert run.data.metrics["r2_amount_7d"] == 0.75
    history = client(store).get_metric_history(run.info.run_id, "epoch_validation_loss")
    assert [(of.step, of.value) for of in history] == [(1, 2.5), (2, 2.25)]
    [registered] = client(store).search_model_versions("name = 'shop'")
    assert (registered.version, registered.run_id) == (1, run.info.run_id)
    copy = Path(client(store).get_model_version_download_uri("shop", "1"))
    assert copy.is_relative_to(Path(store.store.removeprefix("sqlite:///")).with_name("mlartifacts"))
    assert load_model(str(copy)).version == Path(path).name
    assert (copy / "MODEL_CARD.md").exists()
    assert [folder.name for folder in tmp_path.iterdir()] == ["artefacts"]


def test_a_run_that_was_broken_off_is_not_taken_for_the_version(
    store: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "log_artifacts", full)
        with pytest.raises(TrackingError, match=r"OSError: no space left\. When that is mended: .*log_version"):
            log_version(store, "broken", path)
    assert log_version(store, "broken", path).endswith("broken version 1")
    assert sorted(run.info.status for run in runs(store, "broken")) == ["FAILED", "FINISHED"]


def test_without_the_extra_it_is_named(store: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert track(None, "shop", "nowhere") == {}
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtra, match=r"tracking needs: pip install 'gur-spark\[tracking\]'"):
        log_version(store, "shop", saved(tmp_path))


def test_a_failure_does_not_tell_the_password(tmp_path: Path) -> None:
    asked = Tracking(store="nosuchdb://shop:secret@host:1/mlflow")
    with pytest.raises(TrackingError, match=r"MLflow at nosuchdb://shop:\*\*\*@host:1/mlflow: ") as error:
        log_version(asked, "shop", saved(tmp_path))
    assert "secret" not in str(error.value)


def test_the_word_mlflow_logs_to_a_database_in_the_root_with_the_files_beside_it(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    config = make_config({"tables": {"root": "tables"}}, "tracking=mlflow")
    path = saved(tmp_path / "tables" / "artefacts")
    said = track(config.tracking, config.name, path)
    assert said["mlflow"].endswith("test version 1")
    store = Tracking(store=f"sqlite:///{tmp_path}/tables/mlflow.db")
    assert config.tracking == store
    [run] = runs(store, "test")
    copy = Path(client(store).get_model_version_download_uri("test", "1"))
    assert copy.is_relative_to(tmp_path / "tables" / "mlartifacts" / run.info.run_id)
    assert load_model(str(copy)).version == Path(path).name
    assert sorted(file.name for file in (tmp_path / "tables").iterdir()) == ["artefacts", "mlartifacts", "mlflow.db"]


@pytest.mark.any_engine
@pytest.mark.parametrize("required", [False, True])
def test_a_store_that_fails_takes_nothing_from_a_trained_version(
    tables: Tables,
    make_config: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    required: bool,
) -> None:
    (tmp_path / "file").touch()
    broken = f"sqlite:///{tmp_path}/file/mlflow.db"
    config = make_config({"tracking": {"store": broken, "required": required}})
    stub(monkeypatch, LITERAL)
    model = load_model(saved(tmp_path / "artefacts"))
    path = str(tmp_path / "artefacts" / model.version)
    made = TrainedVersion(
        card=model.card, path=path, manifest_hash=model.manifest.hash, metrics=model.metrics, checkpoints=f"{path}.work"
    )
    monkeypatch.setattr(training, "train_version", lambda *_, **__: made)
    run, asked = Run(id="run", job="train", parameters={}), Namespace(as_of=DAYS[:1], align_to=None)
    if required:
        with pytest.raises(TrackingError, match=f"{model.version} is registered in models and could not be logged"):
            train.stage(tables, config, asked, run)
    else:
        train.stage(tables, config, asked, run)
        assert f"could not be logged to MLflow at {broken}" in run.outputs["not tracked"]
        assert run.outputs["not tracked"] in caplog.text
    [row] = tables.read("models").collect()
    assert load_model(row.path).version == row.model_version == run.outputs["model_version"] == model.version
