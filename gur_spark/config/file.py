"""A YAML file, with what it extends and with overrides, to a checked configuration and back.

``conf/base.yaml``, the files that the file extends, the file and ``a.b=c`` overrides are merged in that order.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError  # type: ignore[import-untyped]

from gur_spark.config.layers import merge, read_file, read_layers, read_overrides, with_log_defaults
from gur_spark.config.messages import explain
from gur_spark.config.pipeline import Config
from gur_spark.errors import ConfigError


def base_file() -> Path:
    """``conf/base.yaml`` of the checkout, or its copy inside an installed wheel."""
    packaged = Path(__file__).parents[1] / "base.yaml"
    return packaged if packaged.exists() else Path(__file__).parents[2] / "conf" / "base.yaml"


def load_config(file: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Merge base, ``file`` with all that it extends, and ``a.b=c`` overrides, and check the result.

    Raises:
        ConfigError: naming the key's path, what was expected, what came and the nearest known name.
    """
    base, files = read_file(base_file()), read_layers(Path(file))
    try:
        merged = merge([base, *files, read_overrides(overrides)])
        values = OmegaConf.to_container(with_log_defaults(merged, base), resolve=True)
    except InterpolationResolutionError as error:
        raise ConfigError(f"{file}: {error.full_key}: {_unresolved(error)}") from error
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(f"{file}: {error}") from error
    return check(values, str(file))


def _unresolved(error: InterpolationResolutionError) -> str:
    """Cause and remedy of a ``${...}`` without a value."""
    text = str(error).splitlines()[0]
    variable = re.search(r"Environment variable '([^']*)' not found", text)
    if variable:
        name = variable[1]
        return f"the environment variable {name} is not set; set it, or give a default: ${{oc.env:{name},DEFAULT}}"
    key = re.search(r"Interpolation key '([^']*)' not found", text)
    if key:
        return f"${{{key[1]}}} names no key of the file; a variable of the environment is ${{oc.env:{key[1]}}}"
    return text


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
