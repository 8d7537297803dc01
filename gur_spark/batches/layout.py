"""Names and order of the inputs of a model that reads aggregates."""

from collections.abc import Mapping
from dataclasses import dataclass

from gur_spark.errors import ModelError
from gur_spark.features.declare.manifest import Column, Manifest
from gur_spark.features.declare.windows import Window

LIFETIME = 0
"""Hours of a window without an end."""


@dataclass(frozen=True)
class Layout:
    """Names and order of a model's inputs, as a manifest and a vocabulary fix them."""

    manifest: Manifest
    sizes: Mapping[str, int]
    """Height V of the table of each categorical input (a field's histograms, or a column of ids): greatest id + 1."""

    @classmethod
    def of(cls, manifest: Manifest, sizes: Mapping[str, int]) -> "Layout":
        """Make the layout.

        Raises:
            ModelError: a categorical field has no vocabulary size.
        """
        field_of = {field: field for field in manifest.categorical}
        field_of |= {c.name: c.field or "" for c in (*manifest.ids, *manifest.sets)}
        for field in field_of.values():
            if sizes.get(field, 0) < 2:
                raise ModelError(f"field '{field}' has no vocabulary; available: {dict(sizes)}")
        return cls(manifest, {name: int(sizes[field]) for name, field in field_of.items()})

    @property
    def windows(self) -> tuple[Window, ...]:
        return self.manifest.standard_windows

    @property
    def dense(self) -> tuple[Column, ...]:
        return self.manifest.dense

    @property
    def windows_of(self) -> Mapping[str, tuple[int, ...]]:
        """Hours of the windows of each categorical input; ``LIFETIME`` for a window without an end."""
        histograms = dict.fromkeys(self.manifest.categorical, tuple(w.length or LIFETIME for w in self.windows))
        return histograms | {c.name: (c.window.length or LIFETIME,) for c in (*self.manifest.ids, *self.manifest.sets)}

    @property
    def columns(self) -> list[str]:
        """Columns that a batch is made of."""
        return list(self.manifest.inputs)
