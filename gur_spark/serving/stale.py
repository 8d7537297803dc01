"""Results that an ingest makes stale: snapshots made before its landings, and published embeddings made of them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from gur_spark.config.logs import MAIN
from gur_spark.config.pipeline import Config
from gur_spark.models.catalogue import find
from gur_spark.registry.known import find_model
from gur_spark.registry.published import Published, published
from gur_spark.snapshots.stale import commands_for, is_usual, stale_snapshots
from gur_spark.snapshots.visible import Snapshot
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
    usual = [s.as_of for s in stale if now and _made_from(tables, config, now, s)]
    return Stale(
        snapshots=len(stale),
        commands=commands_for(stale, config),
        published=now if now and now.as_of in usual else None,
    )


def _made_from(tables: Tables, config: Config, now: Published, snapshot: Snapshot) -> bool:
    """Whether the published version reads a snapshot like this one."""
    model = find_model(tables, config, now.model_version)
    read = find(model.kind).reads, model.manifest_hash
    return (snapshot.form, snapshot.manifest_hash) == read and is_usual(snapshot, config.aggregates.delay_days)


def log_stale(stale: Stale) -> None:
    """Log the commands that bring stale results up to date."""
    if not stale.snapshots:
        return
    log.warning("ingest: these landings may change %d snapshots; to bring them up to date:", stale.snapshots)
    for command in stale.commands:
        log.warning("  %s", command)
    if stale.published:
        log.warning("  one of them is published: then score and publish --as-of %s, too", stale.published.as_of)
