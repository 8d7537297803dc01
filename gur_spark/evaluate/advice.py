"""Advice of a report: the representation to use for a task, in one sentence, with the figures that it rests on."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gur_spark.evaluate.figures import BOTH, EMBEDDING, RAW, Difference, Score

MODELS = {"logistic regression": "linear model", "ridge regression": "linear model"}


@dataclass(frozen=True)
class Advice:
    """The best model on the embedding beside the best on raw windows, and on both together."""

    task: str
    metric: str
    smallest_difference: float
    best: Sequence[Score]
    """The better model on each representation, with all labels and with fewer."""
    differences: Sequence[Difference]
    """The embedding from raw windows, by share of the labels; and both together from each of them, with all labels."""

    @property
    def use(self) -> str:
        """Name the representation to use; ``either`` where they are as good, ``not clear`` where nobody knows."""
        word = self._verdict(EMBEDDING, RAW)
        if word is None:
            return "not measured"
        if self._verdict(BOTH, EMBEDDING) == self._verdict(BOTH, RAW) == "win":
            return BOTH
        return {"win": EMBEDDING, "loss": RAW, "as good": "either"}.get(word, "not clear")

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain keys; ``use`` and the sentence ``says`` are among them."""
        return {**asdict(self), "use": self.use, "says": str(self)}

    def __str__(self) -> str:
        if self.use == "not measured":
            return f"{self.task}: not measured; too few test users, or all have the same answer"
        return f"{self.task}: {self._sentence()}{self._few_labels()}"

    def _sentence(self) -> str:
        d = self._difference(EMBEDDING, RAW)
        embedding, raw = self._best(EMBEDDING), self._best(RAW)
        if self.use == BOTH:
            gains = [self._difference(BOTH, alone) for alone in (EMBEDDING, RAW)]
            more = " and ".join(f"{_size(gain)} more than {_the(gain.against)} alone" for gain in gains)
            return f"use raw windows and the embedding together ({self._told(self._best(BOTH))}): {more}"
        if self.use == EMBEDDING:
            less = f"raw windows reach {raw.value:.3f} at best ({_model(raw)}), {_size(d)} less"
            return f"use the embedding ({self._told(embedding)}); {less}"
        if self.use == RAW:
            less = f"the embedding reaches {embedding.value:.3f} at best ({_model(embedding)}), {_size(d)} less"
            return f"use raw windows ({self._told(raw)}); {less}"
        if self.use == "either":
            return f"the embedding ({self._told(embedding)}) is as good as raw windows ({self._told(raw)}): {d}"
        told = f"the embedding ({self._told(embedding)}) and raw windows ({self._told(raw)})"
        return f"no clear difference between {told}: {d}"

    def _few_labels(self) -> str:
        few = [d for d in self.differences if d.label_share < 1]
        return "".join(f"; with {100 * d.label_share:.3g} % of the labels {self._leader(d)}" for d in few)

    def _leader(self, d: Difference) -> str:
        told = {
            "win": f"the embedding leads by {_size(d)}",
            "loss": f"raw windows lead by {_size(d)}",
            "as good": f"the embedding is as good: {d}",
        }
        return told.get(d.verdict(self.smallest_difference), f"there is no clear difference: {d}")

    def _difference(self, ours: str, theirs: str) -> Difference:
        return next(d for d in self.differences if (d.representation, d.against) == (ours, theirs))

    def _verdict(self, ours: str, theirs: str) -> str | None:
        found = [d for d in self.differences if (d.representation, d.against, d.label_share) == (ours, theirs, 1)]
        return found[0].verdict(self.smallest_difference) if found else None

    def _best(self, representation: str) -> Score:
        return next(s for s in self.best if (s.representation, s.label_share) == (representation, 1))

    def _told(self, score: Score) -> str:
        return f"{self.metric} {score.value:.3f}, {_model(score)}"


def _model(score: Score) -> str:
    return MODELS.get(score.model, score.model)


def _the(representation: str) -> str:
    return f"the {representation}" if representation == EMBEDDING else representation


def _size(d: Difference) -> str:
    """Write a difference without its sign, such as ``0.010 [0.004, 0.016]``."""
    low, high = (d.low, d.high) if d.value >= 0 else (-d.high, -d.low)
    return f"{abs(d.value):.3f} [{low:.3f}, {high:.3f}]"
