"""The section ``model`` of a pipeline whose model is the GUR autoencoder (kind ``gur``)."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from gur_spark.config.section import Section, Share
from gur_spark.features.declare.windows import Days
from gur_spark.models.kind import ModelSection

Loss = Literal["mse", "likelihood", "future", "contrastive"]

LEARNS: Mapping[str, str] = {
    "likelihood": "reconstructs the aggregates (squared error of numbers, multinomial likelihood of histograms)",
    "mse": "reconstructs the aggregates (squared error)",
    "future": "predicts the next {horizon} days (whether the user comes back, how often, which categories)",
    "contrastive": "tells two views of one user from views of other users (by {views})",
}
"""Loss -> what the model learns by it, for the model card."""


class Future(Section):
    """Settings of the loss ``future``."""

    horizon_days: Days = 28
    """Days from a snapshot's date on that the model predicts."""


class Contrastive(Section):
    """Settings of the loss ``contrastive``."""

    views: Literal["dates", "halves"] = "dates"
    """Two views of a user: two dates of ``training.as_of``, or two disjoint halves of the user's events."""
    temperature: float = Field(default=0.1, gt=0)
    """Temperature that cosines are divided by: the smaller it is, the more the nearest other users count."""


class GurModel(ModelSection):
    """Settings of the GUR autoencoder; ``docs/model.md`` tells what to choose for how many users."""

    kind: Literal["gur"] = "gur"
    latent_dim: int = Field(default=120, ge=1, le=4096)
    """Width of an embedding."""
    linear_dim: int | None = Field(default=None, ge=0, le=4096)
    """Numbers of the embedding that are rotated principal components of the windows; default half of ``latent_dim``. 0:
    none; ``latent_dim``: all, and nothing is trained."""
    dropout: float = Field(default=0.1, ge=0, le=0.99)
    """Chance that a hidden unit is dropped in training."""
    block_dropout: Share = 0.1
    """Chance that a whole field or window is hidden from the encoder in training."""
    cold_dropout: Share = 0.1
    """Chance that all events of a user are hidden in training, so that attributes alone must do. Without attributes
    none are hidden."""
    loss: dict[Loss, Annotated[float, Field(gt=0)]] = Field(default={"likelihood": 1.0}, min_length=1)
    """Weights of the losses. One name alone, ``likelihood``, is ``{likelihood: 1}``."""
    future: Future = Future()
    contrastive: Contrastive = Contrastive()
    latent: Literal["plain", "variational"] = "plain"
    """``variational``: training draws the latent from a normal distribution; the embedding is its mean."""
    kl_weight: float = Field(default=0.001, ge=0)
    """Weight of the divergence of a variational latent from the standard normal, in nats per user."""
    kl_warmup_epochs: int = Field(default=0, ge=0)
    """Epochs in which that weight rises from 0."""
    unit_norm: bool = False
    """Embeddings have length 1: their dot product is their cosine."""
    tables: Literal["trained", "frozen"] = "trained"
    """Category embeddings: learned with the model, or a truncated SVD of co-occurrence (shifted PMI)."""
    pmi_shift: float = Field(default=0.0, ge=0)
    """PMI that a pair of ids must exceed to count in frozen tables; ln k stands for k negative samples (Levy and
    Goldberg 2014)."""
    embedding_dim: int | None = Field(default=None, ge=1, le=1024)
    """Width of a category table; default min(24, 1.6 V^0.56) for V ids."""
    dense_scale: Literal["none", "signed_log1p"] = "signed_log1p"
    """Scale of the numbers before they are standardised."""

    @field_validator("loss", mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        return {value: 1.0} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _widths(self) -> "GurModel":
        if self.linear_width > self.latent_dim:
            raise ValueError(
                f"linear_dim {self.linear_dim} is more than the embedding has: latent_dim {self.latent_dim}"
            )
        return self

    @model_validator(mode="after")
    def _targets(self) -> "GurModel":
        if "mse" in self.loss and self.tables == "trained":
            raise ValueError("loss 'mse' needs tables 'frozen': trained tables shrink to make it small")
        if {"mse", "likelihood"} <= self.loss.keys():
            raise ValueError("losses 'mse' and 'likelihood' both reconstruct the input: give one of them")
        return self

    @property
    def linear_width(self) -> int:
        """Width of the linear part of an embedding, which comes first."""
        return self.latent_dim // 2 if self.linear_dim is None else self.linear_dim

    @property
    def nonlinear_width(self) -> int:
        """Width of the nonlinear part of an embedding."""
        return self.latent_dim - self.linear_width

    @property
    def learns_from(self) -> frozenset[str]:
        """Names of the losses that train the nonlinear part; none without one."""
        return frozenset(self.loss) if self.nonlinear_width else frozenset()

    @property
    def reconstructs(self) -> Literal["mse", "likelihood"] | None:
        """The loss that reconstructs the input, if there is one."""
        return "mse" if "mse" in self.loss else "likelihood" if "likelihood" in self.loss else None

    @property
    def views(self) -> int:
        """Number of other views of its user that a training row has, for the loss ``contrastive``."""
        return 0 if "contrastive" not in self.learns_from else 1 if self.contrastive.views == "dates" else 2

    def has_unit_norm(self) -> bool:
        return self.unit_norm

    def looks_ahead_days(self) -> int:
        return self.future.horizon_days if "future" in self.learns_from else 0

    def title(self) -> str:
        return f"User embeddings of {self.latent_dim} numbers (GUR autoencoder, arXiv 2403.00584)."

    def learned(self) -> Iterable[str]:
        if self.linear_width:
            yield f"Dimensions 1 to {self.linear_width}: principal components of the windows, rotated by varimax"
        if not self.nonlinear_width:
            return
        if self.linear_width:
            yield f"Dimensions {self.linear_width + 1} to {self.latent_dim}: a network, trained beside the components"
        for name, weight in self.loss.items():
            learns = LEARNS[name].format(horizon=self.future.horizon_days, views=self.contrastive.views)
            yield f"Loss `{name}`, weight {weight:g}: {learns}"
        yield f"Category tables {self.tables}; numbers scaled by {self.dense_scale}"
        yield f"Latent {self.latent}{', of length 1' if self.unit_norm else ''}"
        yield (
            f"Dropout of units {self.dropout:g}, of whole fields and windows {self.block_dropout:g}, "
            f"of all events {self.cold_dropout:g}"
        )

    @classmethod
    def stored(cls, format: int, model: Mapping[str, Any], training: Mapping[str, Any]) -> "GurModel":
        # Before format 3 there was no linear part.
        plain = {"linear_dim": 0} if format < 3 else {}
        return cls.from_format_1({**model, **plain}, training) if format == 1 else cls(**{**model, **plain})

    @classmethod
    def from_format_1(cls, model: Mapping[str, Any], training: Mapping[str, Any]) -> "GurModel":
        """Read the section of an artefact whose ``config.json`` was written before kinds.

        Format 1 kept the horizon and the views in ``training``, the temperature in ``model`` itself, and no kind.

        Raises:
            ValidationError: a value is not valid, or a key is unknown.
        """
        everything = {**training, **model}
        future = {name: everything[name] for name in Future.model_fields if name in everything}
        contrastive = {name: everything[name] for name in Contrastive.model_fields if name in everything}
        own = {name: value for name, value in model.items() if name != "temperature"}
        return cls(**own, future=Future(**future), contrastive=Contrastive(**contrastive))
