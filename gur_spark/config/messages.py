"""Messages for what is wrong with a configuration: the key's path, what was expected, what came, the nearest name."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel

from gur_spark.config.logs import log_class
from gur_spark.errors import nearest
from gur_spark.models.catalogue import DEFAULT, all_kinds, find

if TYPE_CHECKING:
    from gur_spark.models.kind import Kind

MOVED = {
    "training.horizon_days": "model.future.horizon_days (kind gur)",
    "training.views": "model.contrastive.views (kind gur)",
    "model.temperature": "model.contrastive.temperature (kind gur)",
    "evaluation.coles_seconds": "evaluation.coles_epochs (CoLES is trained until its validation loss stops falling)",
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
    said = isinstance(given, dict | BaseModel) or message.endswith(f"got {given!r}")
    return f"{path}: {message}" + ("" if said else f"; got {given!r}")


def _unknown_key(location: Sequence[str], config: type[BaseModel], values: Any) -> str:
    if moved := MOVED.get(".".join(location)):
        return f"moved to {moved}"
    known = _known_keys(location[:-1], config, values)
    if location[0] == "model" and len(location) == 2 and (owners := _kinds_with(location[1])):
        kind = _kind(values).name
        return (
            f"is a key of kind {' and '.join(owners)}, this pipeline's model is of kind '{kind}'; keys of kind "
            f"'{kind}': {known}"
        )
    return f"unknown key; expected one of {known}{nearest(location[-1], known)}"


def _known_keys(location: Sequence[str], config: type[BaseModel], values: Any) -> list[str]:
    """The keys at a place of the configuration, found by walking down the fields of the sections."""
    sections: list[type[BaseModel]] = [config]
    parts = iter(part for part in location if not part.isdigit())
    for part in parts:
        if len(sections) > 1:
            # In a list with several kinds of entries, pydantic names the kind first.
            sections = [section for section in sections if _tag(section) == part]
        elif sections == [config] and part == "model":
            sections = [_kind(values).config]
        elif sections == [config] and part == "logs":
            sections = [log_class(values["logs"][next(parts)])]
        else:
            sections = _below(sections[0], part, parts)
    return [field.alias or name for section in sections for name, field in section.model_fields.items()]


def _tag(section: type[BaseModel]) -> str:
    return str(get_args(section.model_fields["kind"].annotation)[0])


def _below(section: type[BaseModel], part: str, parts: Iterator[str]) -> list[type[BaseModel]]:
    """The sections that a key of a section may hold."""
    annotation = {field.alias or name: field.annotation for name, field in section.model_fields.items()}[part]
    if get_origin(annotation) is dict:
        # The next part is a name that the file gives.
        next(parts, None)
        annotation = get_args(annotation)[1]
    return _sections(annotation)


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections in a type such as ``list[Label]``, ``Tracking | None`` or a union of tasks."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for inner in get_args(annotation) for section in _sections(inner)]


def _kinds_with(key: str) -> list[str]:
    """Names of the kinds that have this key in ``model``, in quotation marks."""
    return [f"'{kind.name}'" for kind in all_kinds() if key in kind.config.model_fields]


def _kind(values: Any) -> "Kind":
    """The kind that the configuration names."""
    return find(values["model"].get("kind", DEFAULT))
