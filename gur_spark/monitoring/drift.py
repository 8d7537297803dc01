"""Result of monitoring a date, which Spark measures and the page shows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from gur_spark.monitoring.features import Distribution
from gur_spark.monitoring.findings import WORST_FIRST, Finding


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Findings and distributions of a date."""

    as_of: date
    inputs: Mapping[str, str] = field(default_factory=dict)
    """The snapshots that were read, for the run's row."""
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

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of findings by status, for the run's row."""
        statuses = Counter(finding.status for finding in self.findings)
        return {f"{status} {self.as_of}": statuses[status] for status in WORST_FIRST}
