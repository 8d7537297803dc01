"""The section ``monitor``: how many users are compared, and the values above which a measure warns or alerts."""

from pydantic import Field, model_validator

from gur_spark.config.section import Section


class Levels(Section):
    """Levels of one measure: a value above one warns or alerts. null switches a level off."""

    warn: float | None
    alert: float | None

    @model_validator(mode="after")
    def _ascending(self) -> "Levels":
        if self.warn is not None and self.alert is not None and self.warn > self.alert:
            raise ValueError(f"expected warn at most alert, got warn {self.warn} and alert {self.alert}")
        return self


class Thresholds(Section):
    """Levels by measure; a greater value of any measure is worse."""

    rows_ratio: Levels
    """Numbers of users of the two sides, the greater one over the smaller."""
    psi: Levels
    """Population stability index of a feature; see ``measures.psi``."""
    null_share: Levels
    """Change of a feature's share of nulls, or of empty histograms, 0 to 1."""
    new_share: Levels
    """Rise of the share of a feature's events whose category the reference's vocabulary does not know, 0 to 1."""
    users_lost: Levels
    """Share of the earlier embeddings' users that have none now."""
    norm_ratio: Levels
    projections_psi: Levels
    domain_auc: Levels
    """AUC of a classifier that tells the two dates apart, 0.5 to 1."""
    neighbours_lost: Levels
    """Share of the nearest neighbours that changed, for 200 users."""
    event_days: Levels
    """Days from a log's newest event to as_of: 1 where the log reaches to the day before."""
    landing_days: Levels
    snapshot_days: Levels
    lost_files: Levels
    """Files that hold rows and that the newest ingest of a log left out."""
    embeddings_days: Levels


class Monitor(Section):
    """Comparisons of the monitor, and the levels at which it judges."""

    sample: int = Field(ge=200)
    """Users of each side that are compared, chosen by a hash of their ids."""
    ignore: list[str] = Field(default_factory=list)
    """Subjects that are measured and not judged: columns of the aggregates, ``log web``, ``users``, ..."""
    thresholds: Thresholds
