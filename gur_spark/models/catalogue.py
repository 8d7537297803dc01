"""The kinds of models, found by name and imported on use.

A new kind is one line here and one folder (``docs/kinds.md``).
"""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, cast

from gur_spark.errors import ConfigError, nearest

if TYPE_CHECKING:
    from gur_spark.models.kind import Kind

DEFAULT = "gur"

MODULES = {
    "gur": "gur_spark.models.gur",
    "coles": "gur_spark.models.lifestream.coles",
}
"""Kind -> the module whose ``KIND`` it is."""


@cache
def find(name: str) -> "Kind":
    """The kind of this name.

    Raises:
        ConfigError: there is none; the message lists those there are, and the nearest.
    """
    if name not in MODULES:
        known = sorted(MODULES)
        raise ConfigError(f"unknown kind '{name}'; expected one of {known}{nearest(name, known)}")
    return cast("Kind", import_module(MODULES[name]).KIND)


def all_kinds() -> list["Kind"]:
    """Every kind, by name."""
    return [find(name) for name in sorted(MODULES)]
