"""What a configuration says of monitoring: how many users are compared, and from where on a measure is news."""

from pydantic import Field, model_validator

from gur_spark.config.section import Section


class Levels(Section):
    """Of one measure; a value above a level has it as its status. null switches a level off."""

    warn: float | None
    alert: float | None

    @model_validator(mode="after")
    def _ascending(self) -> "Levels":
        if self.warn is not None and self.alert is not None and self.warn > self.alert:
            raise ValueError(f"expected warn at most alert, got warn {self.warn} and alert {self.alert}")
        return self


class Thresholds(Section):
    """One field per measure; of all of them a greater value is worse."""

    rows_ratio: Levels
    """Users of the two sides, the greater number over the smaller."""
    psi: Levels
    """Population stability index of a feature; see ``measures.psi``."""
    null_share: Levels
    """How far a feature's share of nulls, or of empty histograms, moved, 0 to 1."""
    new_share: Levels
    """How much more of a feature's events have a category that the reference's vocabulary does not know, 0 to 1."""
    users_lost: Levels
    """Share of the earlier embeddings' users that have none now."""
    norm_ratio: Levels
    projections_psi: Levels
    domain_auc: Levels
    """Of a classifier that tells the two dates apart, 0.5 to 1."""
    neighbours_lost: Levels
    """Share of the canary users' nearest neighbours that are others now."""
    event_days: Levels
    """From a log's newest event to as_of: 1 where it reaches to the day before."""
    landing_days: Levels
    snapshot_days: Levels
    embeddings_days: Levels


class Monitor(Section):
    sample: int = Field(ge=200)
    """Users of each side that are compared, chosen by a hash of their ids."""
    canaries: int = Field(ge=1)
    ignore: list[str] = Field(default_factory=list)
    """Subjects that are measured and never judged: columns of the aggregates, ``log web``, ``users``, ..."""
    thresholds: Thresholds
