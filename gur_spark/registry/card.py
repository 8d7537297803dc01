"""What a model version is, for people: Markdown in its artefact folder, after Mitchell et al. 2019 (Model Cards)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from gur_spark.config.training import Training
from gur_spark.features.declare.manifest import Manifest
from gur_spark.models.gur.settings import GurModel

if TYPE_CHECKING:
    from gur_spark.registry.artefact import Card

_LIMITS = """\
Numbers that describe users to other models: churn, scoring, recommendation, segments, nearest users.

- They are no answer by themselves: fit and test a small model on them, beside raw windows (`evaluate` does).
- They know what the fields above tell, up to the date of each row; who had no event in the longest window is embedded
  by that silence alone.
- They carry what the events carry, unfairness included: test a decision about people for the groups it concerns, and
  do not take embeddings for anonymous; they are personal data as the events are.
- Rows of versions in different spaces are not to be mixed, compared or scored by one model."""

_READING = """\
```python
from gur_spark import load_config, read_embeddings

users = read_embeddings(spark, load_config("shop.yaml"), version="{version}")
```

One row per user and date: `user_id, as_of, model_version, embedding` (float32, {width} numbers), `events` (of the last
{longest} days). Without `version` it is the published one. `gur_spark.registry.artefact.load_model(FOLDER)` embeds
aggregates of manifest `{manifest}` and vocabulary {vocabulary}, and refuses others."""


def render(
    card: "Card",
    *,
    manifest: Manifest,
    sizes: Mapping[str, int],
    vocabulary: str,
    model: GurModel,
    training: Training,
    metrics: Mapping[str, float],
    epochs: Sequence[Mapping[str, float]],
) -> str:
    """The card of a version.

    Args:
        sizes: greatest id + 1 of each categorical field.
        vocabulary: its version and hash.
        epochs: what each of them ended with.
    """
    sections = {
        "Data": _list(_data(card, manifest, sizes, vocabulary, metrics)),
        "What it learned": _list(_learned(model, training, metrics, epochs)),
        "Metrics": _metrics(metrics),
        "Space": _space(card, model, metrics),
        "Intended use and limits": _LIMITS,
        "How to read its embeddings": _READING.format(
            version=card.model_version,
            width=model.latent_dim,
            longest=manifest.windows[-1],
            manifest=manifest.hash,
            vocabulary=vocabulary,
        ),
    }
    title = f"# {card.model_version}\n\n{model.title()}"
    made = f"Made {card.created:%Y-%m-%d %H:%M} UTC, code commit {card.code_commit or 'unknown'}."
    return "\n\n".join([f"{title} {made}", *(f"## {name}\n\n{text}" for name, text in sections.items())]) + "\n"


def _data(
    card: "Card", manifest: Manifest, sizes: Mapping[str, int], vocabulary: str, metrics: Mapping[str, float]
) -> Iterable[str]:
    dates = card.training_dates
    yield f"Users as they were on {', '.join(dates) or 'dates that were not kept'}"
    end = card.seen_until or (dates[-1] if dates else "a date that was not kept")
    ahead = ", what follows the dates above included" if dates and end > dates[-1] else ""
    yield f"Seen until: events before {end} (UTC midnight){ahead}"
    rows = [f"{metrics.get(f'{side}_rows', 0):,.0f} {side}" for side in ("train", "validation")]
    yield f"Rows: {' and '.join(rows)} (a user has one per date, all on one side)"
    yield f"Windows: {', '.join(map(str, manifest.windows))} days before the date"
    for log in manifest.logs:
        yield f"Log `{log.name}`: {', '.join(log.fields) or 'no fields'}"
    numeric = [*manifest.numeric, *(field.numeric for field in manifest.attributes if field.numeric)]
    for field in numeric:
        transform = "" if field.transform == "none" else f", {field.transform}"
        yield f"Number `{field.name}`: in steps of {field.step}{transform}"
    for name in (*manifest.categorical, *manifest.attribute_categories):
        yield f"Category `{name}`: {sizes.get(name, 0):,} ids"
    if manifest.features:
        yield f"Declared features: {len(manifest.features)}, see `manifest.json`"
    yield f"Manifest `{manifest.hash}`, vocabulary {vocabulary}"
    yield from (f"Snapshot `{path}`" for path in card.training_snapshots)


def _learned(
    model: GurModel, training: Training, metrics: Mapping[str, float], epochs: Sequence[Mapping[str, float]]
) -> Iterable[str]:
    yield from model.learned()
    run = f"Adam {training.learning_rate:g}, batches of {training.batch_size}, seed {training.seed}"
    yield f"{run}; {metrics.get('epochs', 0):.0f} epochs of at most {training.epochs}"
    if epochs:
        first, best = epochs[0], min(epochs, key=lambda epoch: epoch["validation_loss"])
        found = f"{first['validation_loss']:.4f} after the first epoch, {best['validation_loss']:.4f} after the best"
        yield f"Validation loss {found} ({best['epoch']:.0f}), whose weights these are"


def _metrics(metrics: Mapping[str, float]) -> str:
    """Of users it was not trained on: R2 per block, and each loss."""
    shown = {
        name: value
        for name, value in metrics.items()
        if name.startswith(("r2", "validation_")) and name != "validation_rows"
    }
    lines = [f"| {_metric(name)} | {value:.3f} |" for name, value in sorted(shown.items())]
    head = "Of validation users. R2 is of standardised input per field and window: 1 is given back whole, 0 no better"
    return f"{head} than the mean.\n\n| metric | value |\n|---|---|\n" + "\n".join(lines)


def _metric(name: str) -> str:
    kind, _, block = name.partition("_")
    if kind == "r2":
        return f"R2 {block.replace('_', ' ') or 'of all blocks'}"
    return f"loss {block}" if block != "loss" else "loss, as weighted"


def _space(card: "Card", model: GurModel, metrics: Mapping[str, float]) -> str:
    if card.aligned_to is None:
        return "Its own: no other version's embeddings can be compared with these."
    residual = f"{metrics['alignment_residual']:.3f}" if "alignment_residual" in metrics else "unknown"
    users = f" ({metrics['alignment_users']:,.0f} users)" if "alignment_users" in metrics else ""
    motion = "a rotation" if model.unit_norm else "a rotation and a shift"
    return (
        f"Aligned to `{card.aligned_to}` by {motion}{users}: a model that was trained on that version's\n"
        f"embeddings can go on with these. Residual {residual}: 0 is the same space, 1 nothing in common."
    )


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
