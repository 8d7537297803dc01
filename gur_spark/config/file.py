"""One YAML file describes a pipeline.

``conf/base.yaml``, the file and ``a.b=c`` overrides are merged in that order (OmegaConf) and checked.
"""

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError  # type: ignore[import-untyped]

from gur_spark.config.messages import explain
from gur_spark.config.pipeline import Config
from gur_spark.config.tracking import MLFLOW
from gur_spark.errors import ConfigError, nearest


def base_file() -> Path:
    """``conf/base.yaml`` of the checkout, or its copy inside an installed wheel."""
    packaged = Path(__file__).parents[1] / "base.yaml"
    return packaged if packaged.exists() else Path(__file__).parents[2] / "conf" / "base.yaml"


def load_config(file: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Merge base, ``file`` and ``a.b=c`` overrides, and check the result.

    Raises:
        ConfigError: naming the key's path, what was expected, what came and the nearest known name.
    """
    for override in overrides:
        if "=" not in override:
            raise ConfigError(f"override '{override}': expected key.path=value")
    base, given = _read(base_file()), _read(Path(file))
    try:
        # An override meant for a key given with no value (`~`) must still find its section.
        all_layers = reduce(_merge, [base, given, _overrides(overrides)])
        merged = OmegaConf.to_container(_with_defaults(all_layers, base), resolve=True)
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(f"{file}: {error}") from error
    return check(merged, str(file))


def _overrides(given: Sequence[str]) -> DictConfig:
    """What ``a.b=c`` on a command line says; ``tracking=mlflow`` goes with keys of its own in any order."""
    word = f"tracking={MLFLOW}"
    if word in given and any(one.startswith("tracking.") for one in given):
        given = [f"tracking.store={MLFLOW}" if one == word else one for one in given]
    return OmegaConf.from_dotlist(list(given))


def check(values: Any, origin: str) -> Config:
    """Check merged values; ``origin`` names their file in messages."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = [explain(details, Config, values) for details in error.errors()]
        raise ConfigError(f"{origin} is not a valid configuration:\n  " + "\n  ".join(lines)) from error


def to_yaml(config: Config) -> str:
    """The merged configuration as YAML, as ``--print-config`` shows it."""
    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json", by_alias=True)))


def _merge(left: DictConfig, right: DictConfig) -> DictConfig:
    """The right one's values over the left one's; ``model.loss`` is one value, whose losses are not added to others."""
    # The word's store must outlive keys that come beside it, such as `tracking.required=true`.
    word = OmegaConf.to_container(OmegaConf.masked_copy(left, ["tracking"])) == {"tracking": MLFLOW}
    merged = OmegaConf.merge(left, {"tracking": {"store": MLFLOW}} if word else {}, right)
    assert isinstance(merged, DictConfig)
    loss = OmegaConf.select(right, "model.loss")
    if loss is not None:
        merged.model.loss = loss
    return merged


def _with_defaults(merged: DictConfig, base: DictConfig) -> DictConfig:
    """Further logs begin with what base says of the main one, and have its type of user ids."""
    defaults = OmegaConf.masked_copy(base, ["source", "fields", "dedupe"])
    kind = OmegaConf.select(merged, "fields.user_id.type")
    defaults = _merge(defaults, OmegaConf.create({"fields": {"user_id": {"type": kind}}}))
    for name, log in (merged.get("logs") or {}).items():
        if isinstance(log, DictConfig):
            merged.logs[name] = _merge(defaults, log)
    return merged


def _read(file: Path) -> DictConfig:
    try:
        loaded = OmegaConf.load(file)
    except FileNotFoundError as error:
        near = nearest(file.name, [p.name for p in file.parent.glob("*.yaml")]) if file.parent.is_dir() else ""
        raise ConfigError(f"configuration file '{file}' does not exist{near}") from error
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"configuration file '{file}' cannot be read: {error}") from error
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"configuration file '{file}': expected a mapping of keys, got a {type(loaded).__name__}")
    return loaded
