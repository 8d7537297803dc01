"""Model versions in MLflow: a run with parameters, metrics per epoch and the artefact folder, and a registered version.

A version is tracked once it is safe in ``models``, which scoring reads. MLflow holds a copy for people and tools.
"""

import json
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gur_spark import storage
from gur_spark.config.tracking import Tracking
from gur_spark.errors import GurError, TrackingError
from gur_spark.extras import import_extra
from gur_spark.registry.files import CARD, CONFIG, EPOCHS, METRICS, MODEL_CARD, VOCABULARY, pack

log = logging.getLogger("gur_spark")

ARTEFACT = "model"
"""Folder among the run's artefacts that holds the version's files."""
VERSION_TAG = "gur_spark.model_version"


def track(settings: Tracking | None, pipeline: str, path: str) -> dict[str, str]:
    """Log a version if the configuration asks for it; return entries for its row in ``runs``.

    A store that fails gives a warning, or an error with ``tracking.required``. The version stands in both cases.

    Raises:
        TrackingError: it could not be logged, and is required to be.
    """
    if settings is None:
        return {}
    try:
        return {"mlflow": log_version(settings, pipeline, path)}
    except GurError as error:
        if settings.required:
            raise
        log.warning("%s", error)
        return {"not tracked": str(error)}


def log_version(settings: Tracking, pipeline: str, path: str) -> str:
    """Log the version in this folder and register it; return the run. A version is logged once.

    Raises:
        TrackingError: MLflow fails; the message says how to log the version later.
        MissingExtra: MLflow is not installed.
    """
    mlflow = import_extra("mlflow", "tracking", "tracking")
    files = {**pack(path), **_beside(path)}
    version = str(json.loads(files[CARD])["model_version"])
    try:
        client = mlflow.MlflowClient(tracking_uri=settings.store, registry_uri=settings.store)
        name = settings.name or pipeline
        experiment = _experiment(client, name, _artifacts(settings.store))
        run_id = _logged(client, experiment, version) or _log_run(client, experiment, version, path, files)
        number = _register(mlflow, client, name, version, run_id)
    # Drivers, HTTP clients and file systems below MLflow raise errors of their own.
    except Exception as error:
        told = f"at {settings.store}: {type(error).__name__}: {error}"
        raise TrackingError(
            f"model {version} is registered in models and could not be logged to MLflow {_without_passwords(told)}. "
            f"When that is mended: gur_spark.registry.tracking.log_version(config.tracking, '{pipeline}', '{path}')"
        ) from error
    log.info("mlflow: %s is run %s, %s version %s", version, run_id, name, number)
    return f"run {run_id}, {name} version {number}"


def _beside(path: str) -> dict[str, bytes]:
    """Read the files that are not needed to embed. Versions of older code have none of them."""
    files = {name: storage.join(path, name) for name in (EPOCHS, MODEL_CARD)}
    return {name: storage.read_bytes(file) for name, file in files.items() if storage.exists(file)}


def _artifacts(store: str) -> str | None:
    """Choose the folder of a new experiment's files: beside a database file, because MLflow would take the working
    folder.

    Returns None for any other store, which knows its own.
    """
    file = store.removeprefix("sqlite:///")
    return None if file == store else str(Path(file).absolute().with_name("mlartifacts"))


def _without_passwords(text: str) -> str:
    return re.sub(r"(://[^:/@\s]*):[^@/\s]*@", r"\1:***@", text)


def _experiment(client: Any, name: str, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name, artifacts))


def _logged(client: Any, experiment: str, version: str) -> str | None:
    """Find the run of a version that was logged completely."""
    wanted = f"tags.`{VERSION_TAG}` = '{version}' and attributes.status = 'FINISHED'"
    found = client.search_runs([experiment], wanted, max_results=1)
    return str(found[0].info.run_id) if found else None


def _log_run(client: Any, experiment: str, version: str, path: str, files: Mapping[str, bytes]) -> str:
    card = json.loads(files[CARD])
    tags = {
        VERSION_TAG: version,
        "gur_spark.path": path,
        "gur_spark.training_dates": ", ".join(card.get("training_dates", [])),
    }
    tags |= {f"gur_spark.{name}": card[name] for name in ("aligned_to", "code_commit", "seen_until") if card[name]}
    run_id = str(client.create_run(experiment, tags=tags, run_name=version).info.run_id)
    try:
        for name, value in _parameters(files).items():
            client.log_param(run_id, name, value)
        for epoch in json.loads(files.get(EPOCHS, b"[]")):
            for name in epoch.keys() - {"epoch"}:
                client.log_metric(run_id, f"epoch_{name}", epoch[name], step=int(epoch["epoch"]))
        for name, value in json.loads(files[METRICS]).items():
            client.log_metric(run_id, name, value)
        with _folder(files) as folder:
            client.log_artifacts(run_id, folder, ARTEFACT)
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id)
    return run_id


def _parameters(files: Mapping[str, bytes]) -> dict[str, str]:
    """List the parameters, such as ``model.latent_dim``, and the vocabulary."""
    config, vocabulary = json.loads(files[CONFIG]), json.loads(files[VOCABULARY])
    sections = ("model", "training")
    found = {f"{section}.{name}": value for section in sections for name, value in config[section].items()}
    found |= {f"vocabulary.{name}": vocabulary[name] for name in ("version", "hash")}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}


@contextmanager
def _folder(files: Mapping[str, bytes]) -> Iterator[str]:
    """Give the version's files as a folder on this machine's disk."""
    with tempfile.TemporaryDirectory(prefix="gur_spark_") as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        yield folder


def _register(mlflow: Any, client: Any, name: str, version: str, run_id: str) -> str:
    """Return the number of the registered version; a version that was registered before keeps its number."""
    try:
        client.create_registered_model(name)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    if known:
        return str(known[0].version)
    source = f"{client.get_run(run_id).info.artifact_uri}/{ARTEFACT}"
    return str(client.create_model_version(name, source, run_id, tags={VERSION_TAG: version}).version)
