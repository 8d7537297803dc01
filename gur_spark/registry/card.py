"""Card of a model version: its origin, and a digest of every other file of its artefact."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from hashlib import sha256
from typing import Any

from gur_spark.errors import ModelError
from gur_spark.registry.files import CARD, CONTENT, content_hash


@dataclass(frozen=True, kw_only=True)
class Card:
    """Origin of a model version."""

    model_version: str
    kind: str
    outputs: tuple[str, ...] = ("embeddings",)
    """Names of the outputs that it writes; cards of format 1 do not hold them."""
    training_snapshots: tuple[str, ...]
    """Folders of the snapshots, by date."""
    training_dates: tuple[str, ...] = ()
    """ISO dates of the snapshots, ascending."""
    code_commit: str | None
    created: datetime
    """Time of creation, UTC."""
    aligned_to: str | None = None
    """The version with the space that its embeddings are in."""
    upstream: str | None = None
    """The version of another pipeline that it was trained on top of."""
    seen_until: str | None = None
    """The first ISO date with events that training did not see: the newest training date, or the end of the horizon
    that it learned from."""

    def to_json(self, files: Mapping[str, bytes]) -> bytes:
        """Write the card with the digests of the artefact's files."""
        digests = {name: sha256(content).hexdigest() for name, content in files.items()}
        values = {**vars(self), "created": self.created.isoformat(), "sha256": digests}
        values["digest"] = _digest(values)
        return (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()


def verified_card(files: Mapping[str, bytes]) -> Card:
    """Read the card, and check that it and each file have their digests and that the version is named after the files.

    A card that was written before cards had a digest of their own is read without that check.

    Raises:
        ModelError: the card cannot be read, or a file is not the one that was written.
    """
    try:
        values = json.loads(files[CARD])
        own = values.pop("digest", None)
        altered = own is not None and own != _digest(values)
        digests = values.pop("sha256")
        values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        card = Card(**{**values, "created": datetime.fromisoformat(values["created"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{CARD} cannot be read: {error!r}") from error
    if altered:
        raise ModelError(f"model {card.model_version}: {CARD} was altered: its values do not have its digest")
    for name in CONTENT:
        found = sha256(files[name]).hexdigest()
        if digests.get(name) != found:
            raise ModelError(
                f"model {card.model_version}: {name} was altered or cut short: "
                f"expected sha256 {digests.get(name)}, got {found} ({len(files[name])} bytes)"
            )
    if not card.model_version.endswith(content_hash(files)):
        raise ModelError(f"model {card.model_version}: the files are those of another version ({content_hash(files)})")
    return card


def _digest(values: Mapping[str, Any]) -> str:
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def seen_until_of(card: Card) -> date:
    """Read the first date with events that training did not see.

    Raises:
        ModelError: the card does not say so, and a leak could not be ruled out.
    """
    if not card.seen_until:
        raise ModelError(
            f"the card of {card.model_version} does not say until when its training saw events, so nothing can tell "
            "whether a date leaks into it; train a new version"
        )
    return date.fromisoformat(card.seen_until)
