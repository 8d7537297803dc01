"""What was found of a date: the seam between what Spark measures and the page that shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from gur_spark.monitoring.features import Distribution
from gur_spark.monitoring.findings import Finding


@dataclass(frozen=True, kw_only=True)
class Drift:
    """The findings of a date."""

    as_of: date
    users: int
    reference: str
    """Of the inputs."""
    model_version: str | None
    """Whose embeddings were measured."""
    vocabulary_version: int
    """Whose ids the distributions have."""
    findings: Sequence[Finding]
    """Worst first."""
    distributions: Sequence[Distribution]
