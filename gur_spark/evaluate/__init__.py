"""What the embeddings know, beside raw windows, PCA, a random encoder, hand-made statistics and CoLES.

``settings`` says what is asked. ``labels`` makes the answers with Spark; ``features`` and ``sequence_baselines`` make
what the embedding is compared with; ``probe`` fits small models on each, for the questions in ``tasks``, and measures
them over splits (``pooling``, ``bootstrap``) and ``segments``; ``report``, ``plots`` and ``page`` show the result.
"""

from typing import Any

from gur_spark.errors import EvaluationError
from gur_spark.extras import import_extra


def extra(module: str) -> Any:
    """A module of the extra ``evaluate`` or ``sequences``, imported on use: only reports need it.

    Raises:
        EvaluationError: it is not installed.
    """
    name = "sequences" if module.split(".")[0] in ("ptls", "pytorch_lightning") else "evaluate"
    return import_extra(module, name, "a report", EvaluationError)
