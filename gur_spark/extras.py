"""Libraries of the optional extras, imported on use: who does not need them need not install them."""

from importlib import import_module
from typing import Any

from gur_spark.errors import GurError, MissingExtra


def import_extra(module: str, extra: str, purpose: str, error: type[GurError] = MissingExtra) -> Any:
    """A module of an extra.

    Raises:
        MissingExtra: (or ``error``) it is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as reason:
        hint = f"{purpose} needs: pip install 'gur-spark[{extra}]'"
        raise error(f"{module} cannot be imported ({reason}); {hint}") from reason
