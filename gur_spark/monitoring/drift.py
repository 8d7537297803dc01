"""Result of monitoring a date, which Spark measures and the page shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from gur_spark.monitoring.features import Distribution
from gur_spark.monitoring.findings import Finding


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Findings and distributions of a date."""

    as_of: date
    users: int
    reference: str
    """Name of the reference that inputs were compared with."""
    model_version: str | None
    """Version whose embeddings were measured; None where none were."""
    vocabulary_version: int
    """Vocabulary whose ids the distributions have."""
    findings: Sequence[Finding]
    """Worst first."""
    distributions: Sequence[Distribution]
