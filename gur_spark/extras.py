"""Libraries of the optional extras. They are imported on use, so that nobody must install what they do not need."""

from importlib import import_module
from typing import Any

from gur_spark.errors import EvaluationError, GurError, MissingExtra


def import_extra(module: str, extra: str, purpose: str, error: type[GurError] = MissingExtra) -> Any:
    """Import a module of an extra.

    Raises:
        MissingExtra: (or ``error``) it is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as reason:
        hint = f"{purpose} needs: pip install 'gur-spark[{extra}]'"
        raise error(f"{module} cannot be imported ({reason}); {hint}") from reason


def report_library(module: str) -> Any:
    """Import a module that only reports need, of the extra ``evaluate`` or ``sequences``.

    Raises:
        EvaluationError: it is not installed.
    """
    name = "sequences" if module.split(".")[0] in ("ptls", "pytorch_lightning") else "evaluate"
    return import_extra(module, name, "a report", EvaluationError)
