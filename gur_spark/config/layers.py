"""Layers of a configuration: base, the files that a file extends, the file itself, and overrides, merged in that order.

``extends: shop.yaml`` in a file names another one, by a path beside it; the file says only what it changes. Relative
paths of data stay as they are written: they are relative to the working directory, whichever file they stand in.
"""

import os
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from gur_spark.config.tracking import MLFLOW
from gur_spark.errors import ConfigError, nearest
from gur_spark.models.catalogue import DEFAULT, MODULES

EXTENDS = "extends"


def read_layers(file: Path) -> list[DictConfig]:
    """The files that ``file`` extends, the one that extends nothing first, and the file itself, without ``extends``.

    Raises:
        ConfigError: a file is missing or is no mapping, ``extends`` is no path, or files extend one another in a loop.
    """
    layers: list[DictConfig] = []
    chain: list[Path] = []
    following: Path | None = file
    while following:
        if following.resolve() in [earlier.resolve() for earlier in chain]:
            loop = " -> ".join(str(one) for one in (*chain, following))
            raise ConfigError(f"configuration file '{following}' extends itself: {loop}")
        layer = read_file(following, chain[-1] if chain else None)
        chain.append(following)
        layers.insert(0, layer)
        following = _extended(layer, following)
    _check_names(layers, list(reversed(chain)))
    return layers


def _check_names(layers: Sequence[DictConfig], files: Sequence[Path]) -> None:
    """Check that a file with a model of another kind than the file that it extends has a name of its own.

    An unknown kind is left to the check of the whole configuration, which names the nearest.

    Raises:
        ConfigError: it has none, so that both would publish under one name.
    """
    kinds = [DEFAULT]
    for layer, file in zip(layers, files, strict=True):
        try:
            kinds.append(_kind(layer, inherited=kinds[-1]))
        except OmegaConfBaseException as error:
            raise ConfigError(f"{file}: {error}") from error
    for layer, file, below, kind in zip(layers[1:], files[1:], kinds[1:], kinds[2:], strict=False):
        if kind != below and kind in MODULES and "name" not in layer:
            raise ConfigError(
                f"{file}: its model is of kind '{kind}', and that of the file which it extends of kind '{below}': give "
                "it a name of its own, or both would publish under one name"
            )


def _extended(layer: DictConfig, file: Path) -> Path | None:
    """The file that a layer extends, taken out of the layer; None where it extends none."""
    if EXTENDS not in layer:
        return None
    try:
        path = layer.pop(EXTENDS)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{file}: {error}") from error
    if not isinstance(path, str) or not path:
        raise ConfigError(f"{file}: extends: expected the path of a file beside this one; got {path!r}")
    return _plain(file.parent / path)


def _plain(path: Path) -> Path:
    """The path without ``..``, unless that is another file because a folder is a link."""
    shorter = Path(os.path.normpath(path))
    return shorter if shorter.resolve() == path.resolve() else path


def read_file(file: Path, extended_by: Path | None = None) -> DictConfig:
    """One YAML file.

    Raises:
        ConfigError: it does not exist, with the nearest name there is, or it is no mapping.
    """
    try:
        loaded = OmegaConf.load(file)
    except FileNotFoundError as error:
        near = nearest(file.name, [p.name for p in file.parent.glob("*.yaml")]) if file.parent.is_dir() else ""
        by = f", which '{extended_by}' extends," if extended_by else ""
        raise ConfigError(f"configuration file '{file}'{by} does not exist{near}") from error
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"configuration file '{file}' cannot be read: {error}") from error
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"configuration file '{file}': expected a mapping of keys, got a {type(loaded).__name__}")
    return loaded


def read_overrides(given: Sequence[str]) -> DictConfig:
    """The layer of a command line's ``a.b=c``; ``tracking=mlflow`` goes with keys below it in any order.

    Raises:
        ConfigError: one of them has no ``=``, or extends a file.
    """
    for override in given:
        if "=" not in override:
            raise ConfigError(f"override '{override}': expected key.path=value")
        if override.startswith(f"{EXTENDS}="):
            raise ConfigError(f"override '{override}': only a file can extend another one")
    word = f"tracking={MLFLOW}"
    if word in given and any(one.startswith("tracking.") for one in given):
        given = [f"tracking.store={MLFLOW}" if one == word else one for one in given]
    return OmegaConf.from_dotlist(list(given))


def merge(layers: Sequence[DictConfig]) -> DictConfig:
    """Later layers over earlier ones, key by key, with three exceptions.

    A ``model`` of another kind replaces the whole ``model`` below it, whose keys are those of its own kind.
    ``model.loss`` is one value: its losses are not added to those below. Keys beside ``tracking: mlflow`` keep it.
    """
    return reduce(_over, layers)


def _over(lower: DictConfig, upper: DictConfig) -> DictConfig:
    if _kind(lower) != _kind(upper, inherited=_kind(lower)):
        lower = OmegaConf.masked_copy(lower, [str(key) for key in lower if key != "model"])
    word = OmegaConf.to_container(OmegaConf.masked_copy(lower, ["tracking"])) == {"tracking": MLFLOW}
    merged = OmegaConf.merge(lower, {"tracking": {"store": MLFLOW}} if word else {}, upper)
    assert isinstance(merged, DictConfig)
    loss = OmegaConf.select(upper, "model.loss")
    if loss is not None:
        merged.model.loss = loss
    return merged


def _kind(layer: DictConfig, inherited: str = DEFAULT) -> str:
    """The kind of model that a layer says, or else the inherited one."""
    model = layer.get("model")
    return model.get("kind", inherited) if isinstance(model, DictConfig) else inherited


def with_log_defaults(merged: DictConfig, base: DictConfig) -> DictConfig:
    """Each further log over what base says of the main one, and over the main log's type of user ids.

    A log of items has no user ids.
    """
    defaults = OmegaConf.masked_copy(base, ["source", "fields", "dedupe"])
    of_items = OmegaConf.merge(defaults, {"fields": None}, {"fields": {"event_time": defaults.fields.event_time}})
    user_type = OmegaConf.select(merged, "fields.user_id.type")
    of_users = merge([defaults, OmegaConf.create({"fields": {"user_id": {"type": user_type}}})])
    logs = merged.get("logs")
    for name, log in logs.items() if isinstance(logs, DictConfig) else ():
        if isinstance(log, DictConfig):
            below = of_items if log.get("kind") == "items" else of_users
            merged.logs[name] = OmegaConf.merge(below, log)
    return merged
