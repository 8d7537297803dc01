"""What the embeddings know, beside raw windows, PCA and a random encoder.

``labels`` reads the answers with Spark, ``features`` makes the representations that the embedding is compared
with, ``probe`` fits and tests small models on each, ``report`` shows the result.
"""

from typing import Any

from gur_spark.errors import EvaluationError
from gur_spark.extras import import_extra


def extra(module: str) -> Any:
    """A module of the extra ``evaluate``, imported on use: only reports need it.

    Raises:
        EvaluationError: it is not installed.
    """
    return import_extra(module, "evaluate", "a report", EvaluationError)
