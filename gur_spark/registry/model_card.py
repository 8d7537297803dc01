"""Model card for people, as Markdown, after Mitchell et al. 2019 (Model Cards)."""

from collections.abc import Iterable, Mapping, Sequence

from gur_spark.config.training import Training
from gur_spark.features.declare.manifest import Manifest, SequenceManifest
from gur_spark.models.kind import Artefact, Dimension, ModelSection
from gur_spark.registry.card import Card

Epochs = Sequence[Mapping[str, float]]

_LIMITS = """\
Numbers that describe users to other models: churn, scoring, recommendation, segments, nearest users.

- They are no answer by themselves: fit and test a small model on them, beside raw windows (`evaluate` does).
- They know what the fields above tell, before midnight of the date of each row. Silence alone tells of a user without
  events.
- They carry what the events carry, unfairness included: test a decision about people for the groups it concerns.
  Embeddings are not anonymous; they are personal data as the events are.
- Rows of versions in different spaces must not be mixed, compared or scored by one model."""

_READING = """\
```python
from gur_spark import load_config, read_embeddings

users = read_embeddings(spark, load_config("shop.yaml"), version="{version}")
```

One row per user and date: `user_id, as_of, model_version, embedding` (float32), `events` (in the window before the
date). Without `version` it is the published one. `gur_spark.registry.artefact.load_model(FOLDER).scorer` scores
snapshots of manifest `{manifest}` and vocabulary {vocabulary}, and refuses others."""


def render(
    card: Card, artefact: Artefact, training: Training, epochs: Epochs, dimensions: Sequence[Dimension] = ()
) -> str:
    """Write the card of a version as Markdown.

    Args:
        epochs: losses at the end of each epoch.
        dimensions: numbers of the embedding that have a name.
    """
    vocabulary = f"{artefact.vocabulary.version} ({artefact.vocabulary.hash})"
    sections = {
        "Data": _list(_data(card, artefact, vocabulary)),
        "What it learned": _list([*artefact.model.learned(), *_run(training, artefact.metrics, epochs)]),
        "Metrics": _metrics(artefact.metrics),
        **({"Dimensions": _dimensions(dimensions)} if dimensions else {}),
        "Space": _space(card, artefact.model, artefact.metrics),
        "Intended use and limits": _LIMITS,
        "How to read its embeddings": _READING.format(
            version=card.model_version, manifest=artefact.manifest.hash, vocabulary=vocabulary
        ),
    }
    made = f"Made {card.created:%Y-%m-%d %H:%M} UTC, code commit {card.code_commit or 'unknown'}."
    title = f"# {card.model_version}\n\n{artefact.model.title()} {made}"
    return "\n\n".join([title, *(f"## {name}\n\n{text}" for name, text in sections.items())]) + "\n"


def _data(card: Card, artefact: Artefact, vocabulary: str) -> Iterable[str]:
    dates, metrics, manifest = card.training_dates, artefact.metrics, artefact.manifest
    yield f"Users as they were on {', '.join(dates) or 'dates that were not kept'}"
    end = card.seen_until or (dates[-1] if dates else "a date that was not kept")
    ahead = ", what follows the dates above included" if dates and end > dates[-1] else ""
    yield f"Seen until: events before {end} (UTC midnight){ahead}"
    rows = [f"{metrics.get(f'{side}_rows', 0):,.0f} {side}" for side in ("train", "validation")]
    yield f"Rows: {' and '.join(rows)} (a user has one per date, all on one side)"
    sizes = artefact.vocabulary.sizes
    yield from _of_aggregates(manifest, sizes) if isinstance(manifest, Manifest) else _of_sequences(manifest, sizes)
    yield f"Manifest `{manifest.hash}`, vocabulary {vocabulary}"
    yield from (f"Snapshot `{path}`" for path in card.training_snapshots)


def _of_aggregates(manifest: Manifest, sizes: Mapping[str, int]) -> Iterable[str]:
    yield f"Windows: {', '.join(w.name for w in manifest.standard_windows)} before the date"
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


def _of_sequences(manifest: SequenceManifest, sizes: Mapping[str, int]) -> Iterable[str]:
    yield f"Events {manifest.window.meaning}, at most {manifest.max_events or 'all'} of a user, the newest"
    for column in manifest.columns:
        if column.name in sizes:
            yield f"Category `{column.name}`: {sizes[column.name]:,} ids"
        elif column.dtype == "array<double>":
            yield f"Number `{column.name}`: {column.unit}"


def _run(training: Training, metrics: Mapping[str, float], epochs: Epochs) -> Iterable[str]:
    if metrics.get("epochs") == 0:
        yield "No epochs: the components were computed from the training users"
        return
    run = f"Learning rate {training.learning_rate:g}, batches of {training.batch_size}, seed {training.seed}"
    yield f"{run}; {metrics.get('epochs', 0):.0f} epochs of at most {training.epochs}"
    if epochs:
        first, best = epochs[0], min(epochs, key=lambda epoch: epoch["validation_loss"])
        found = f"{first['validation_loss']:.4f} after the first epoch, {best['validation_loss']:.4f} after the best"
        yield f"Validation loss {found} ({best['epoch']:.0f}), whose weights these are"


def _dimensions(dimensions: Sequence[Dimension]) -> str:
    """Write a table of the named dimensions."""
    lines = [f"| {d.number} | {d.name.replace('|', '/') or 'always 0'} | {d.variance:.1%} |" for d in dimensions]
    told = (
        "Rotated principal components, with the largest weights of the standardised inputs in each. The squares of all "
        "weights of a dimension add up to 1. `describe_dimensions` gives more weights."
    )
    return f"{told}\n\n| dimension | largest weights | share of variance |\n|---|---|---|\n" + "\n".join(lines)


def _metrics(metrics: Mapping[str, float]) -> str:
    """Write a table of the metrics on users that the version was not trained on."""
    shown = {
        name: value
        for name, value in metrics.items()
        if name.startswith(("r2", "validation_")) and name != "validation_rows"
    }
    lines = [f"| {_metric(name)} | {value:.3f} |" for name, value in sorted(shown.items())]
    told = "Measured on validation users."
    if any(name.startswith("r2") for name in shown):
        told += (
            " R2 is of standardised input per field and window: 1 is reconstructed whole, 0 no better than the mean."
        )
    return f"{told}\n\n| metric | value |\n|---|---|\n" + "\n".join(lines)


def _metric(name: str) -> str:
    kind, _, block = name.partition("_")
    if kind == "r2":
        return f"R2 {block.replace('_', ' ') or 'of all blocks'}"
    return f"loss {block}" if block != "loss" else "loss, as weighted"


def _space(card: Card, model: ModelSection, metrics: Mapping[str, float]) -> str:
    if card.aligned_to is None:
        return "Its own: no other version's embeddings can be compared with these."
    residual = f"{metrics['alignment_residual']:.3f}" if "alignment_residual" in metrics else "unknown"
    users = f" ({metrics['alignment_users']:,.0f} users)" if "alignment_users" in metrics else ""
    motion = "a rotation" if model.has_unit_norm() else "a rotation and a shift"
    return (
        f"Aligned to `{card.aligned_to}` by {motion}{users}: a model that was trained on that version's\n"
        f"embeddings can go on with these. Residual {residual}: 0 is the same space, 1 nothing in common."
    )


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
