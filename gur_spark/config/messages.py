"""Messages for what is wrong with a configuration: the key's path, what was expected, what came, the nearest name."""

from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from gur_spark.errors import nearest
from gur_spark.models.catalogue import DEFAULT, find

MOVED = {
    "training.horizon_days": "model.future.horizon_days (kind gur)",
    "training.views": "model.contrastive.views (kind gur)",
    "model.temperature": "model.contrastive.temperature (kind gur)",
}
"""Key of an earlier version -> its place now."""


def explain(details: Mapping[str, Any], config: type[BaseModel], values: Any) -> str:
    """One line about one error of pydantic's.

    Args:
        config: the class of the whole configuration.
        values: the merged values that were checked.
    """
    location = [str(part) for part in details["loc"]]
    path = ".".join(location) or "(whole file)"
    if details["type"] == "extra_forbidden":
        return f"{path}: {_unknown_key(location, config, values)}"
    if details["type"] == "missing":
        return f"{path}: required, and not given"
    message = details["msg"].removeprefix("Value error, ")
    given = details["input"]
    return f"{path}: {message}" + ("" if isinstance(given, dict | BaseModel) else f"; got {given!r}")


def _unknown_key(location: Sequence[str], config: type[BaseModel], values: Any) -> str:
    if moved := MOVED.get(".".join(location)):
        return f"moved to {moved}"
    known = _known_keys(location[:-1], config, values)
    return f"unknown key; expected one of {known}{nearest(location[-1], known)}"


def _known_keys(location: Sequence[str], config: type[BaseModel], values: Any) -> list[str]:
    """The keys at a place of the configuration, found by walking down the fields of the sections."""
    section: Any = config
    parts = iter(location)
    for part in parts:
        if not part.isdigit():
            section = _model(values) if section is config and part == "model" else _below(section, part, parts)
    return [field.alias or name for name, field in section.model_fields.items()]


def _model(values: Any) -> Any:
    """The section of the kind that the configuration names."""
    return find(values["model"].get("kind", DEFAULT)).config


def _below(section: Any, part: str, parts: Iterator[str]) -> Any:
    annotation = {field.alias or name: field.annotation for name, field in section.model_fields.items()}[part]
    if get_origin(annotation) is dict:
        # The next part is a name that the file gives.
        next(parts, None)
        annotation = get_args(annotation)[1]
    while get_origin(annotation) in (list, UnionType):
        annotation = next(a for a in get_args(annotation) if a is not type(None))
    return annotation
