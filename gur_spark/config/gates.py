"""The section ``gates``: what a publish must pass."""

from pydantic import Field

from gur_spark.config.section import Section, Share


class Gates(Section):
    """Limits on new embeddings, against the published ones; null switches a gate off (``gur_spark.outputs.gates``)."""

    min_rows_share: float | None = Field(ge=0)
    """Rows, as a share of the published ones."""
    max_norm_ratio: float | None = Field(ge=1)
    """Mean norms, the greater one over the smaller."""
    max_psi: float | None = Field(ge=0)
    """Population stability index of random projections."""
    max_domain_auc: float | None = Field(ge=0.5, le=1)
    """AUC of a classifier that tells the two apart."""
    min_neighbours: Share | None
    """Share of the ten nearest neighbours that stay, for 200 users."""
    min_item_coverage: float | None = Field(default=0.5, ge=0)
    """Different items that are recommended, as a share of the published ones."""
    min_item_overlap: Share | None = 0.1
    """Share of a user's published items that stay, on average."""
    task: str | None = None
    """Name of one of ``evaluation.tasks`` or ``evaluation.labels``, which another version must do as well."""
    max_downstream_loss: float | None = Field(default=0.0, ge=0)
    """AUC that the task may lose beyond the paired interval, for all users and for cold, light and heavy ones."""
    max_consumer_loss: float | None = Field(default=0.02, ge=0)
    """Relative AUC that a model trained on the published version may lose on new rows that claim its space."""
    sample: int = Field(ge=200)
    """Users that are compared."""
