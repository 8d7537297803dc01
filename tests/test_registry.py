"""Artefacts load as they were saved; altered, truncated or foreign ones are refused."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load, save

from gur_spark.batches.layout import Layout
from gur_spark.errors import ModelError
from gur_spark.models.gur.autoencoder import GUR
from gur_spark.models.gur.scorer import ROTATION, SHIFT, GurScorer
from gur_spark.models.gur.settings import LEARNS, Contrastive, Future, Loss
from gur_spark.models.kind import Form, VocabularyRef
from gur_spark.registry import model_card
from gur_spark.registry.artefact import Origin, load_model, unpack
from gur_spark.registry.card import seen_until_of
from gur_spark.registry.files import (
    CARD,
    CONFIG,
    CONTENT,
    EPOCHS,
    MANIFEST,
    MODEL_CARD,
    VOCABULARY,
    WEIGHTS,
    content_hash,
    pack,
)
from gur_spark.registry.files import (
    METRICS as METRICS_FILE,
)
from gur_spark.registry.fit import check_fit
from gur_spark.snapshots.visible import Snapshot
from tests import versions
from tests.aggregate_data import SIZES, random_events, tiny_manifest, to_rows
from tests.versions import untrained_version

MODEL = versions.MODEL.model_copy(update={"dense_scale": "none"})
TRAINING = versions.TRAINING
FILES = (CARD, *CONTENT)
LOSSES = [
    {"epoch": 1, "train_loss": 3.0, "validation_loss": 2.5},
    {"epoch": 2, "train_loss": 2.0, "validation_loss": 2.25},
]
METRICS = {"r2": 0.5, "r2_amount_7d": 0.75, "train_rows": 1234.0, "validation_rows": 56.0, "epochs": 2.0}
VOCABULARY_REF = VocabularyRef(version=3, hash="abc", sizes=SIZES)
ORIGIN = Origin(
    snapshots=("one", "two"),
    dates=("2024-05-01", "2024-06-01"),
    seen_until=date(2024, 6, 1),
    code_commit="c0ffee",
)


def saved(parent: Path, **more: Any) -> str:
    given = {"vocabulary": VOCABULARY_REF, "origin": ORIGIN, "metrics": METRICS, "epochs": LOSSES}
    return untrained_version(parent, MODEL, **{**given, **more})


@pytest.fixture
def path(tmp_path: Path) -> str:
    return saved(tmp_path)


def rows(users: int = 20) -> pa.RecordBatch:
    return to_rows(random_events(users, SIZES, ["amount"], seed=3, longest=30), tiny_manifest())


def scorer_of(path: str) -> GurScorer:
    scorer = load_model(path).scorer
    assert isinstance(scorer, GurScorer)
    return scorer


def test_what_was_saved_is_what_is_loaded(path: str) -> None:
    loaded = load_model(path)
    assert Path(path).name == loaded.version
    assert (loaded.manifest, loaded.model, loaded.vocabulary) == (tiny_manifest(), MODEL, VOCABULARY_REF)
    assert (loaded.metrics["r2"], scorer_of(path).module.latent_dim) == (0.5, 6)
    assert json.loads((Path(path) / EPOCHS).read_text()) == LOSSES
    card = loaded.card
    assert (card.kind, card.outputs, loaded.kind.name) == ("gur", ("embeddings",), "gur")
    assert (card.training_snapshots, card.training_dates) == (ORIGIN.snapshots, ORIGIN.dates)
    assert (card.code_commit, card.upstream, seen_until_of(card)) == ("c0ffee", None, date(2024, 6, 1))
    torch.manual_seed(0)
    original = GUR(Layout.of(tiny_manifest(), SIZES), MODEL).state_dict()
    weights = scorer_of(path).module.state_dict()
    assert all(torch.equal(tensor.float(), original[name]) for name, tensor in weights.items())


def test_the_same_content_has_the_same_suffix_and_files_hold_no_pickle(path: str, tmp_path: Path) -> None:
    again = saved(tmp_path / "again")
    assert Path(again).name[-8:] == Path(path).name[-8:]
    assert sorted(file.name for file in Path(path).iterdir()) == sorted([*FILES, EPOCHS, MODEL_CARD])


def test_loading_runs_no_pickle_and_a_pickle_in_the_place_of_weights_is_refused_unread(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tmp_path / "opened"
    torch.save({"encoder.0.weight": _Opened(opened)}, tmp_path / "weights.pt")
    (tmp_path / "weights.pickle").write_bytes(pickle.dumps(_Opened(opened)))

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a pickle was read")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refused)
    assert scorer_of(path).vectors(rows()).shape == (20, 6)
    for name in ("weights.pt", "weights.pickle"):
        with pytest.raises(ModelError, match="cannot be read"):
            unpack(forged(path, WEIGHTS, (tmp_path / name).read_bytes()))
    assert not opened.exists()


class _Opened:
    """An object that leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


SNAPSHOT = Snapshot(
    form=Form.AGGREGATES, as_of=date(2024, 6, 1), known_at=datetime(2024, 6, 1, tzinfo=UTC), path="",
    manifest_hash=tiny_manifest().hash,
    vocabulary_version=3, vocabulary_hash="abc", lineage="", rows=1, checksum="",
)  # fmt: skip


def test_aggregates_of_another_form_manifest_or_vocabulary_are_refused_by_name(path: str, tmp_path: Path) -> None:
    model = load_model(path)
    check_fit(model, SNAPSHOT)
    other = tiny_manifest(windows=(7, 60))
    (tmp_path / "manifest.json").write_text(other.to_json())
    with pytest.raises(ModelError, match=rf"manifest .* has {other.hash}; they differ in active_days_30d"):
        check_fit(model, replace(SNAPSHOT, path=str(tmp_path), manifest_hash=other.hash))
    with pytest.raises(ModelError, match=r"3 \(abc\), .* has 4 \(abd\); make it again with --vocabulary 3"):
        check_fit(model, replace(SNAPSHOT, vocabulary_version=4, vocabulary_hash="abd"))
    with pytest.raises(ModelError, match=r"kind 'gur', which reads aggregates; .* has the form sequences"):
        check_fit(model, replace(SNAPSHOT, form=Form.SEQUENCES))


def test_the_model_card_tells_people_what_it_is_and_is_no_part_of_what_is_loaded(path: str, tmp_path: Path) -> None:
    text = (Path(path) / MODEL_CARD).read_text()
    for told in (
        f"# {Path(path).name}",
        "Users as they were on 2024-05-01, 2024-06-01",
        "Seen until: events before 2024-06-01",
        "Rows: 1,234 train and 56 validation",
        "Windows: 7d, 30d before the date",
        "Number `amount`: in steps of 0.01",
        "Category `mcc`: 9 ids",
        f"Manifest `{tiny_manifest().hash}`, vocabulary 3 (abc)",
        "Loss `likelihood`, weight 1",
        "2.5000 after the first epoch, 2.2500 after the best (2)",
        "| R2 of all blocks | 0.500 |",
        "| R2 amount 7d | 0.750 |",
        "Its own: no other version's embeddings",
        "## Intended use and limits",
        f'version="{Path(path).name}"',
    ):
        assert told in text
    motion = {ROTATION: torch.eye(6).double(), SHIFT: torch.zeros(6).double()}
    ahead = replace(ORIGIN, seen_until=date(2024, 7, 1))
    aligned = saved(tmp_path / "aligned", more=motion, aligned_to="older", origin=ahead)
    text = (Path(aligned) / MODEL_CARD).read_text()
    assert "Aligned to `older` by a rotation and a shift" in text
    card, on_a_sphere = load_model(aligned).card, MODEL.model_copy(update={"unit_norm": True})
    assert "Aligned to `older` by a rotation: a model" in model_card._space(card, on_a_sphere, {})
    assert "Seen until: events before 2024-07-01 (UTC midnight), what follows the dates above included" in text
    assert LEARNS.keys() == set(get_args(Loss))
    for name in (MODEL_CARD, EPOCHS):
        (Path(path) / name).unlink()
    assert load_model(path).version == Path(path).name


def test_embedding_in_batches_of_any_size_gives_the_same(path: str) -> None:
    scorer = scorer_of(path)
    whole = scorer.vectors(rows())
    assert (whole.shape, whole.dtype) == ((20, 6), np.float32)
    for size in (1, 7):
        parts = [scorer.vectors(rows().slice(start, size)) for start in range(0, 20, size)]
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6, rtol=0)
    assert scorer.vectors(rows().slice(0, 0)).shape == (0, 6)


def test_a_packed_model_embeds_as_the_one_on_disk(path: str) -> None:
    scored = unpack(pack(path)).scorer.score(rows())["embeddings"]
    assert scored.equals(scorer_of(path).score(rows())["embeddings"])
    np.testing.assert_array_equal(np.stack(scored["embedding"].to_numpy(False)), scorer_of(path).vectors(rows()))
    assert scored["events"].equals(rows()["events_30d"])


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(path: str, name: str) -> None:
    (Path(path) / name).unlink()
    with pytest.raises(ModelError, match=f"{name} is missing"):
        load_model(path)


@pytest.mark.parametrize("name", CONTENT)
@pytest.mark.parametrize("damage", [lambda content: content[:-20], lambda content: content + b" ", lambda content: b""])
def test_a_file_that_was_altered_or_cut_short_is_named(path: str, name: str, damage: Callable[[bytes], bytes]) -> None:
    file = Path(path) / name
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelError, match=f"{name} was altered or cut short"):
        load_model(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"sha256": {}}'])
def test_a_damaged_card_is_refused(path: str, content: bytes) -> None:
    (Path(path) / CARD).write_bytes(content)
    with pytest.raises(ModelError, match=r"card\.json cannot be read"):
        load_model(path)


def test_a_card_that_says_another_date_than_it_was_written_with_is_refused(path: str) -> None:
    file = Path(path, "card.json")
    card = json.loads(file.read_text())
    file.write_text(json.dumps({**card, "seen_until": "2020-01-01"}))
    with pytest.raises(ModelError, match=r"card\.json was altered"):
        load_model(path)


def test_content_of_another_version_under_this_ones_name_is_refused(path: str) -> None:
    file = Path(path) / CARD
    card = json.loads(file.read_text())
    del card["digest"]
    file.write_text(json.dumps({**card, "model_version": "gur-20240101T000000-00000000"}))
    with pytest.raises(ModelError, match="the files are those of another version"):
        load_model(path)


def forged(path: str, name: str, content: bytes) -> dict[str, bytes]:
    """The model with one file exchanged, and a card that agrees."""
    files = {**pack(path), name: content}
    card: dict[str, Any] = json.loads(files[CARD])
    card["sha256"] = {n: sha256(files[n]).hexdigest() for n in CONTENT}
    card["model_version"] = f"gur-20240101T000000-{content_hash(files)}"
    del card["digest"]
    return {**files, CARD: json.dumps(card).encode()}


def test_weights_of_another_shape_or_name_are_listed(path: str) -> None:
    weights = load(pack(path)[WEIGHTS])
    weights["encoder.0.weight"] = torch.zeros(2, 2)
    weights["surprise"] = weights.pop("encoder.0.bias")
    with pytest.raises(ModelError) as refused:
        unpack(forged(path, WEIGHTS, save(weights)))
    lines = [line.split(":")[0].strip() for line in str(refused.value).splitlines()[1:]]
    assert lines == ["encoder.0.bias", "encoder.0.weight", "surprise"]
    assert "encoder.0.weight: expected" in str(refused.value)
    assert "got (2, 2)" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (WEIGHTS, b"no tensors"),
        (CONFIG, b'{"model": {}}'),
        (MANIFEST, tiny_manifest().to_json().replace("amount", "amouns").encode()),
        (VOCABULARY, b'{"version": 1}'),
        (METRICS_FILE, b"{"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused(path: str, name: str, content: bytes) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        unpack(forged(path, name, content))


def test_rows_of_another_manifest_are_refused(path: str) -> None:
    with pytest.raises(ModelError, match="'amount_count_7d' is not in the snapshot"):
        scorer_of(path).vectors(rows().drop_columns(["amount_count_7d"]))


BEFORE_KINDS = {
    "model": {
        "latent_dim": 6, "dropout": 0.1, "block_dropout": 0.1, "loss": {"likelihood": 1.0, "future": 0.5},
        "tables": "trained", "dense_scale": "none", "temperature": 0.2,
    },
    "training": {
        "as_of": [], "epochs": 1, "batch_size": 32, "learning_rate": 0.005, "patience": 3, "validation_share": 0.25,
        "seed": 1, "device": "cpu", "threads": 1, "horizon_days": 10, "views": "halves",
    },
}  # fmt: skip
"""The ``config.json`` of a version before kinds: without a format, a kind, and two sections of the model."""


def test_a_version_from_before_kinds_loads_and_embeds(tmp_path: Path) -> None:
    model = MODEL.model_copy(
        update={
            "loss": {"likelihood": 1.0, "future": 0.5},
            "future": Future(horizon_days=10),
            "contrastive": Contrastive(views="halves", temperature=0.2),
            "linear_dim": 0,
        }
    )
    now = untrained_version(tmp_path, model, vocabulary=VOCABULARY_REF)
    files = forged(now, CONFIG, json.dumps(BEFORE_KINDS).encode())
    card = json.loads(files[CARD])
    for name in ("outputs", "upstream"):
        del card[name]
    loaded = unpack({**files, CARD: json.dumps(card).encode()})
    assert loaded.model == model
    assert (loaded.card.kind, loaded.card.outputs) == ("gur", ("embeddings",))
    made = loaded.scorer.score(rows())["embeddings"]
    assert made.equals(load_model(now).scorer.score(rows())["embeddings"])


def test_a_version_of_a_kind_that_is_not_there_says_which_there_are(path: str) -> None:
    files = pack(path)
    card = json.loads(files[CARD]) | {"kind": "gru"}
    del card["digest"]
    with pytest.raises(ModelError, match=r"model gur-\S+: unknown kind 'gru'; expected one of .*'gur'"):
        unpack({**files, CARD: json.dumps(card).encode()})


def test_a_card_that_does_not_say_until_when_events_were_seen_does_not_pass_for_one_that_saw_none(
    tmp_path: Path,
) -> None:
    card = load_model(saved(tmp_path, origin=replace(ORIGIN, seen_until=None))).card
    with pytest.raises(ModelError, match=f"the card of {card.model_version} does not say until when"):
        seen_until_of(card)
