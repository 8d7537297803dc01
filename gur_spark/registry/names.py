"""Names of embeddings: a model version, means of its rows, or its rows in the space of an older version.

A consumer reads embeddings by one name. It sees a version's own rows, their means or mapped rows, and never two of them
together.
"""

import re
from dataclasses import dataclass, replace

_MEAN = re.compile(r"(?P<base>.+)-mean(?P<dates>[2-9]|[1-9]\d+)")


@dataclass(frozen=True)
class VersionName:
    """A value of the column ``model_version`` of ``embeddings``: ``BASE``, ``BASE-mean3`` or ``BASE@OLD``."""

    base: str
    """The model version."""
    mean_of: int = 1
    """Number of dates that rows are means of; 1: rows are the embeddings themselves."""
    space: str | None = None
    """The older version with the space that rows were mapped to."""

    def __str__(self) -> str:
        mean = f"-mean{self.mean_of}" if self.mean_of > 1 else ""
        return f"{self.base}{mean}" + (f"@{self.space}" if self.space else "")

    @classmethod
    def parse(cls, text: str) -> "VersionName":
        """Parse a name that ``str`` wrote. A text without ``-mean3`` and ``@OLD`` is the name of a version itself."""
        own, _, space = text.partition("@")
        mean = _MEAN.fullmatch(own)
        base, dates = (mean["base"], int(mean["dates"])) if mean else (own, 1)
        return cls(base, dates, space or None)

    def mapped_to(self, old: str) -> "VersionName":
        """Name the same rows in the space of an older version."""
        return replace(self, space=old)
