"""What the embeddings know, beside raw windows, PCA and a random encoder.

``labels`` reads the answers with Spark, ``features`` makes the representations that the embedding is compared
with, ``probe`` fits and tests small models on each, ``report`` shows the result.
"""

from importlib import import_module
from typing import Any

from gur_spark.errors import EvaluationError


def extra(module: str) -> Any:
    """A module of the extra ``evaluate``, imported on use: only reports need it.

    Raises:
        EvaluationError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        hint = "reports need: pip install 'gur-spark[evaluate]'"
        raise EvaluationError(f"{module} cannot be imported ({error}); {hint}") from error
