"""Results that an ingest makes stale: snapshots made before its landings, and published embeddings made of them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from gur_spark.config.logs import MAIN
from gur_spark.config.pipeline import Config
from gur_spark.errors import GurError
from gur_spark.events.vocabulary import read_vocabulary
from gur_spark.models.catalogue import find
from gur_spark.models.kind import Form
from gur_spark.registry.known import find_model
from gur_spark.registry.published import Published, published
from gur_spark.registry.vocabularies import chosen_vocabulary
from gur_spark.snapshots.stale import commands_for, is_usual, stale_snapshots
from gur_spark.snapshots.visible import Snapshot
from gur_spark.snapshots.wanted import wanted_manifest
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Account

log = logging.getLogger("gur_spark")


@dataclass(frozen=True, kw_only=True)
class Stale:
    """Results that should be made again."""

    snapshots: int
    """Number of stale snapshots."""
    commands: Sequence[str]
    """Jobs, with options, that make them again."""
    published: Published | None
    """The published version and date, if its snapshot is stale."""

    @property
    def account(self) -> Account:
        """Entries for the row of the ingest."""
        outputs = {"stale snapshots": "; ".join(self.commands)} if self.snapshots else {}
        return Account(outputs=outputs | ({"stale published": str(self.published)} if self.published else {}))


def stale_after(tables: Tables, config: Config, ingested: Sequence[str]) -> Stale:
    """Find the results that are stale after an ingest of these landings, named as in the ``inputs`` of its run."""
    # A table is read whole each time, changed or not.
    tables_read = [name for name, log in config.raw_logs.items() if log.source.format in ("delta", "table")]
    landings = [key for key in ingested if (key.rpartition(" ")[0] or MAIN) not in tables_read]
    stale = stale_snapshots(tables, config, landings)
    now = published(tables, config.name) if stale else None
    read = _snapshots_read(tables, config, now) if now else None
    alike = [s for s in stale if read and _is_read(s, *read)]
    usual = [s.as_of for s in alike if is_usual(s, config.aggregates.delay_days)]
    return Stale(
        snapshots=len(stale),
        commands=commands_for(tables, stale, config, _usual_vocabulary(tables, config)) if stale else [],
        published=now if now and now.as_of in usual else None,
    )


def _usual_vocabulary(tables: Tables, config: Config) -> int | None:
    """The vocabulary that the jobs take by themselves; None if it is not known, since an ingest must not fail."""
    try:
        return chosen_vocabulary(tables, config, None) or read_vocabulary(tables).version
    except GurError:
        return None


def _is_read(snapshot: Snapshot, form: Form, manifest_hash: str, vocabulary_hash: str | None) -> bool:
    """Whether a snapshot is of this form, manifest and vocabulary (None: of any vocabulary)."""
    alike = (snapshot.form, snapshot.manifest_hash) == (form, manifest_hash)
    return alike and vocabulary_hash in (None, snapshot.vocabulary_hash)


def _snapshots_read(tables: Tables, config: Config, now: Published) -> tuple[Form, str, str | None] | None:
    """Form, manifest hash and vocabulary hash of the snapshots that the published version reads.

    If its row is gone, those of the configuration stand for them, of any vocabulary; None if they are not known. An
    ingest must not fail because of a model.
    """
    try:
        model = find_model(tables, config, now.model_version)
        return find(model.kind).reads, model.manifest_hash, model.vocabulary_hash
    except GurError:
        form = find(config.model.kind).reads
    try:
        return form, wanted_manifest(tables, config, form).hash, None
    except GurError:
        return None


def log_stale(stale: Stale) -> None:
    """Log the commands that bring stale results up to date."""
    if not stale.snapshots:
        return
    log.warning("ingest: these landings may change %d snapshots; to bring them up to date:", stale.snapshots)
    for command in stale.commands:
        log.warning("  %s", command)
    if stale.published:
        log.warning("  one of them is published: then score and publish --as-of %s, too", stale.published.as_of)
