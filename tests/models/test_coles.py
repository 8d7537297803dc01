"""CoLES: equal to pytorch-lifestream's on its own batches, the same bits whoever is in a batch, refusals by name."""

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ptls.data_load.padded_batch import PaddedBatch
from ptls.frames.coles import CoLESModule
from ptls.frames.coles.losses import ContrastiveLoss
from ptls.frames.coles.sampling_strategies import HardNegativePairSelector
from ptls.frames.coles.split_strategy import SampleSlices
from safetensors.torch import save as save_tensors
from torch import Tensor

from gur_spark.batches.padded import Sequences
from gur_spark.batches.sequence_streams import split_sides
from gur_spark.batches.sequences import TIMES, Events, SequenceLayout, to_events
from gur_spark.config.training import Training
from gur_spark.errors import ModelError, SnapshotError, TrainingError
from gur_spark.models.catalogue import find
from gur_spark.models.kind import Artefact, Capability, Fitted, Form, Learner, Trained, TrainingInputs, VocabularyRef
from gur_spark.models.lifestream import recurrence
from gur_spark.models.lifestream import scorer as scorers
from gur_spark.models.lifestream.encoder import NUMBERS, SequenceEncoder, beside
from gur_spark.models.lifestream.learner import ColesLearner
from gur_spark.models.lifestream.losses import HardNegatives, SliceLoss
from gur_spark.models.lifestream.probe import DAYS, earlier, linear_scores
from gur_spark.models.lifestream.recurrence import FoldedGru
from gur_spark.models.lifestream.scorer import LONG, SequenceScorer, scorer_of
from gur_spark.models.lifestream.settings import ColesModel, Slices
from gur_spark.models.lifestream.slices import Slicer, drop_events
from tests.sequence_data import AS_OF, DAY, SIZES, manifest, random_users, seconds, to_rows, write_snapshot

LAYOUT = SequenceLayout.of(manifest(), SIZES)
VOCABULARY = VocabularyRef(version=1, hash="v", sizes=SIZES)
MODEL = ColesModel(
    latent_dim=16, slices=Slices(count=3, min=3, max=12), embedding_dim=4, event_dropout=0.0, embedding_noise=0.0
)
TRAINING = Training(
    epochs=2, batch_size=20, learning_rate=0.01, patience=5, validation_share=0.25, seed=3, device="cpu", threads=1
)
COLES = find("coles")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Torch's threads wait for one another where batches are small, and split sums in another way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def encoder(model: ColesModel = MODEL, seed: int = 0) -> SequenceEncoder:
    """An encoder whose standardisation is not the identity."""
    torch.manual_seed(seed)
    module = SequenceEncoder(LAYOUT, model)
    for name, buffer in module.named_buffers():
        buffer.copy_(torch.rand(len(buffer)) + (0.5 if "std" in name else 0))
    return module


def events(count: int = 20, **options: Any) -> Events:
    return to_events(to_rows(random_users(count, **options)), LAYOUT)


def as_the_library_collates(batch: Sequences) -> PaddedBatch:
    """The same sequences with columns that are padded before they are encoded."""
    lengths = batch.lengths_B.tolist()

    def padded(column: Tensor) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(list(column.split(lengths)), batch_first=True)

    payload = {name: padded(ids) for name, ids in zip(SIZES, batch.ids_CN, strict=True)}
    return PaddedBatch(payload | {NUMBERS: padded(batch.numbers_ND)}, batch.lengths_B)


# The library's modules on the library's batches


@pytest.mark.parametrize("network", ["gru", "lstm"])
def test_states_are_those_of_the_library_with_the_same_weights(network: str) -> None:
    module, batch = encoder(MODEL.model_copy(update={"encoder": network})), Sequences.of(events())
    library = module.sequence
    library.is_reduce_sequence = True
    expected = library(as_the_library_collates(batch))
    library.is_reduce_sequence = False
    torch.testing.assert_close(module.state(batch), expected, rtol=0, atol=1e-6)


def test_the_loss_is_that_of_the_librarys_module() -> None:
    module = encoder()
    batch = Slicer.of(MODEL)(events(12), np.random.default_rng(0))
    library = CoLESModule(module.sequence, optimizer_partial=object(), lr_scheduler_partial=object())
    state, labels = library.shared_step(as_the_library_collates(batch.sequences), batch.labels_S)
    expected = library._loss(state, labels)
    module.sequence.is_reduce_sequence = False
    found = SliceLoss(0.5, 5)(module.state(batch.sequences), batch.labels_S)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_gradients_are_those_of_the_library() -> None:
    states = torch.randn(24, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(8).repeat_interleave(3)
    sides = []
    for loss in (SliceLoss(0.5, 5), lambda x, y: ContrastiveLoss(0.5, HardNegativePairSelector(5))(unit(x), y)):
        x = states.clone().requires_grad_()
        loss(x, labels).backward()
        sides.append(x.grad)
    torch.testing.assert_close(*sides, rtol=1e-5, atol=1e-6)


def unit(x: Tensor) -> Tensor:
    return x / (x.pow(2).sum(dim=1, keepdim=True) + 1e-9).sqrt()


@pytest.mark.parametrize(("second", "total"), [([[0.8, 0.6]] * 2, 0.0), ([[1.0, 0.0], [0.8, 0.6]], 1.8)])
def test_the_loss_is_the_number_of_the_docstring(second: list[list[float]], total: float) -> None:
    first = [[1.0, 0.0]] * 2 if total == 0 else second
    states, labels = torch.tensor([*first, *second]), torch.tensor([0, 0, 1, 1])
    assert SliceLoss(0.5, 1)(states, labels).item() == pytest.approx(total, abs=1e-4)


def pairs_of(selector: Any, states: Tensor, labels: Tensor) -> list[set[tuple[int, int]]]:
    return [{(int(a), int(b)) for a, b in pairs} for pairs in selector.get_pairs(states, labels)]


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(2, 4), st.integers(1, 5), st.integers(0, 99))
def test_pairs_are_those_of_the_librarys_selector(users: int, slices: int, count: int, seed: int) -> None:
    states = unit(torch.randn(users * slices, 5, generator=torch.Generator().manual_seed(seed)))
    labels = torch.randperm(users * slices, generator=torch.Generator().manual_seed(seed)) % users
    negatives = (users - 1) * slices
    found = pairs_of(HardNegatives(count), states, labels)
    if count <= negatives:
        assert found == pairs_of(HardNegativePairSelector(count), states, labels)
    assert all(labels[a] != labels[b] for a, b in found[1])
    assert len(found[1]) == users * slices * min(count, negatives)


# Slices


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(1, 20), st.integers(0, 30), st.floats(0, 1))
def test_slices_are_runs_of_events_of_the_lengths_asked_for(
    available: list[int], least: int, more: int, last_share: float
) -> None:
    slicer = Slicer(count=4, least=least, most=least + more, last_share=last_share)
    available_S = np.repeat(available, 50)
    starts_S, lengths_S = slicer.draw(available_S, np.random.default_rng(0))
    short_S = available_S <= least
    assert (lengths_S[short_S] == available_S[short_S]).all()
    assert (lengths_S[~short_S] >= least).all()
    assert (lengths_S <= np.maximum(least + more, np.where(short_S, available_S, 0))).all()
    assert ((starts_S >= 0) & (starts_S + lengths_S <= available_S)).all()


def test_slices_have_the_distribution_of_the_librarys_rule() -> None:
    np.random.seed(0)
    library = [(ix[0], len(ix)) for _ in range(4000) for ix in SampleSlices(5, 5, 20).split(np.zeros(30))]
    ours = np.stack(Slicer(count=5, least=5, most=20).draw(np.full(20_000, 30), np.random.default_rng(0)), axis=1)
    for column, bins in ((0, 27), (1, 22)):
        shares = [np.bincount(np.array(side)[:, column], minlength=bins) / 20_000 for side in (library, ours)]
        np.testing.assert_allclose(*shares, atol=0.01)


def test_a_share_of_the_slices_ends_with_the_newest_event() -> None:
    available = np.full(20_000, 1000)
    starts, lengths = Slicer(count=1, least=5, most=20, last_share=0.3).draw(available, np.random.default_rng(0))
    assert np.mean(starts + lengths == available) == pytest.approx(0.3, abs=0.02)


def test_slices_come_by_length_and_know_whose_they_are() -> None:
    some = events(10, seed=5)
    batch = Slicer.of(MODEL)(some, np.random.default_rng(1))
    lengths = batch.sequences.lengths_B.tolist()
    assert lengths == sorted(lengths)
    assert torch.bincount(batch.labels_S).tolist() == [3] * 10
    ids = np.split(some.ids_CN[0], some.offsets[1:-1])
    order = np.argsort(some.users_B)
    for label, slice_ids in zip(batch.labels_S.tolist(), batch.sequences.ids_CN[0].split(lengths), strict=True):
        whole = ids[order[label]].tolist()
        assert any(whole[i : i + len(slice_ids)] == slice_ids.tolist() for i in range(len(whole)))


def test_rows_of_one_user_have_one_label() -> None:
    some = Events.together([events(3), to_events(to_rows(random_users(3, seed=8), AS_OF.replace(day=2)), LAYOUT)])
    assert torch.bincount(Slicer.of(MODEL)(some, np.random.default_rng(0)).labels_S).tolist() == [6, 6, 6]


def test_dropped_events_leave_the_last_of_each_sequence() -> None:
    some = events(40, longest=200)
    left = drop_events(some, 0.3, np.random.default_rng(0))
    assert left.offsets[-1] / some.offsets[-1] == pytest.approx(0.7, abs=0.03)
    np.testing.assert_array_equal(left.numbers_ND[left.offsets[1:] - 1], some.numbers_ND[some.offsets[1:] - 1])
    nothing = drop_events(some, 0.999999, np.random.default_rng(0))
    assert nothing.lengths_B.tolist() == [1] * 40


# Training


@dataclass
class TinyTrainer:
    """Epochs in a loop, with the weights of the last one; ``before`` is called at the beginning of each."""

    training: Training = TRAINING
    parts: int = 1
    state: dict[str, Any] | None = None
    begin: int = 0

    def fit(self, learner: Learner, depends_on: Mapping[str, Any]) -> Fitted:
        self.depends_on = depends_on
        learner = pickle.loads(pickle.dumps(learner)) if self.parts > 1 else learner
        optimizer, scheduler = learner.optimizer(self.training)
        if self.state:
            learner.module.load_state_dict(self.state["module"])
            optimizer.load_state_dict(self.state["optimizer"])
            scheduler.load_state_dict(self.state["scheduler"])
        epochs = []
        for epoch in range(self.begin, self.training.epochs):
            torch.manual_seed(1000 + epoch)
            learner.module.train()
            for batch in learner.batches(epoch, (0, self.parts)):
                optimizer.zero_grad()
                learner.loss(batch, epoch).backward()
                optimizer.step()
            scheduler.step()
            learner.module.eval()
            epochs.append({"epoch": epoch + 1.0, "validation_loss": validation(learner)})
        self.state = {
            "module": {name: tensor.clone() for name, tensor in learner.module.state_dict().items()},
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
        }
        return Fitted(metrics={"validation_loss": epochs[-1]["validation_loss"]}, epochs=epochs, checkpoints="")


@torch.no_grad()
def validation(learner: Learner) -> float:
    losses = [(float(learner.loss(batch, None)), learner.users(batch)) for batch in learner.batches(None, (0, 1))]
    return sum(loss * users for loss, users in losses) / sum(users for _, users in losses)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_snapshot(tmp_path_factory.mktemp("data") / "snapshot", random_users(160, longest=60), files=2)


def inputs(*folders: str, model: ColesModel = MODEL, training: Training = TRAINING) -> TrainingInputs:
    return TrainingInputs(snapshots=folders, folders=folders, vocabulary=VOCABULARY, model=model, training=training)


def trained(*folders: str, trainer: TinyTrainer | None = None, **changes: Any) -> Trained:
    given = inputs(*folders, **changes)
    return COLES.train(given, trainer or TinyTrainer(given.training))


def artefact(made: Trained, model: ColesModel = MODEL) -> Artefact:
    weights = save_tensors(dict(made.tensors))
    return Artefact(
        version="coles-1", model=model, manifest=made.manifest, vocabulary=VOCABULARY, weights=weights, metrics={}
    )


@pytest.fixture(scope="module")
def made(snapshot: str) -> Trained:
    return trained(snapshot)


def test_the_kind_reads_sequences_and_writes_embeddings() -> None:
    assert (COLES.name, COLES.config, COLES.reads, COLES.writes) == (
        "coles",
        ColesModel,
        Form.SEQUENCES,
        ("embeddings",),
    )
    assert COLES.can == {Capability.MAPPING, Capability.SMOOTHING}


def test_training_lowers_the_validation_loss(snapshot: str) -> None:
    longer = TRAINING.model_copy(update={"epochs": 4})
    losses = [epoch["validation_loss"] for epoch in trained(snapshot, training=longer).fitted.epochs]
    assert losses[-1] < 0.9 * losses[0]


def test_training_gives_the_same_weights_again(snapshot: str, made: Trained) -> None:
    again = trained(snapshot)
    assert {name: tensor.tolist() for name, tensor in again.tensors.items()} == {
        name: tensor.tolist() for name, tensor in made.tensors.items()
    }
    assert again.metrics == made.metrics


def test_a_training_that_goes_on_ends_with_the_weights_it_would_have_had(snapshot: str) -> None:
    noisy = MODEL.model_copy(update={"event_dropout": 0.1, "embedding_noise": 0.01, "learning_rate_decay": 0.5})
    whole = trained(snapshot, model=noisy)
    first = TinyTrainer(TRAINING.model_copy(update={"epochs": 1}))
    trained(snapshot, trainer=first, model=noisy)
    rest = trained(snapshot, trainer=TinyTrainer(state=first.state, begin=1), model=noisy)
    for name, tensor in whole.tensors.items():
        assert torch.equal(tensor, rest.tensors[name]), name


def test_numbers_are_standardised_by_the_training_users_events(snapshot: str, made: Trained) -> None:
    training, _ = split_sides([snapshot], TRAINING.validation_share, TRAINING.seed)
    numbers = np.concatenate([some.numbers_ND for some in training.events(LAYOUT)])
    prefix = f"sequence.trx_encoder.custom_embeddings.{NUMBERS}"
    np.testing.assert_allclose(made.tensors[f"{prefix}.mean_D"], numbers.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(made.tensors[f"{prefix}.std_D"], numbers.std(axis=0), rtol=1e-4)
    users = np.concatenate([beside(Sequences.of(some)).numpy() for some in training.events(LAYOUT)])
    np.testing.assert_allclose(made.tensors["beside_mean_R"], users.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(made.tensors["beside_std_R"], users.std(axis=0), rtol=1e-4)


def test_metrics_say_what_the_embedding_and_the_state_know_of_recency(made: Trained) -> None:
    rows = made.metrics["train_rows"], made.metrics["validation_rows"]
    assert sum(rows) == 160
    # Every third user of the test data is silent for longer than the probe looks back.
    assert made.metrics["probe_auc"] > 0.7
    assert 0 <= made.metrics["probe_state_auc"] <= 1


def test_a_run_is_known_by_its_files_its_vocabulary_and_its_model(snapshot: str, tmp_path: Path) -> None:
    def depends_on(given: TrainingInputs) -> Any:
        trainer = TinyTrainer(TRAINING.model_copy(update={"epochs": 1}))
        COLES.train(given, trainer)
        return trainer.depends_on

    first = depends_on(inputs(snapshot))
    assert depends_on(inputs(snapshot)) == first
    other = write_snapshot(tmp_path / "other", random_users(160, longest=60), files=2)
    assert depends_on(inputs(other)) != first
    assert depends_on(replace(inputs(snapshot), vocabulary=replace(VOCABULARY, hash="w"))) != first
    assert depends_on(inputs(snapshot, model=MODEL.model_copy(update={"margin": 0.4}))) != first


def test_a_learner_travels_to_another_process_and_its_parts_have_equally_many_batches(snapshot: str) -> None:
    sides = split_sides([snapshot], TRAINING.validation_share, TRAINING.seed)
    learner = ColesLearner(module=encoder(), layout=LAYOUT, model=MODEL, training=TRAINING, sides=sides)
    copy = pickle.loads(pickle.dumps(learner))
    batches = [list(side.batches(1, (k, 2))) for k, side in enumerate((learner, copy))]
    assert len(batches[0]) == len(batches[1])
    assert sum(learner.users(batch) for part in batches for batch in part) == sides[0].total
    again = list(copy.batches(1, (0, 2)))
    assert torch.equal(again[0].sequences.numbers_ND, batches[0][0].sequences.numbers_ND)


def test_batches_move_to_a_device_but_for_their_lengths() -> None:
    batch = Slicer.of(MODEL)(events(4), np.random.default_rng(0)).to("meta")
    assert batch.labels_S.device.type == batch.sequences.numbers_ND.device.type == "meta"
    assert batch.sequences.lengths_B.device.type == "cpu"


# Scoring


@pytest.fixture(scope="module")
def scorer(made: Trained) -> SequenceScorer:
    found = COLES.load(artefact(made))
    assert isinstance(found, SequenceScorer)
    return found


def vectors(scorer: SequenceScorer, rows: pa.RecordBatch) -> np.ndarray:
    found = scorer.score(rows)["embeddings"]
    assert found.schema.field("embedding").type == pa.list_(pa.float32())
    return np.array(found["embedding"].to_pylist(), dtype=np.float32)


def test_a_row_is_scored_with_its_user_and_number_of_events(scorer: SequenceScorer) -> None:
    rows = to_rows(random_users(70, seed=6))
    found = scorer.score(rows)["embeddings"]
    assert found.schema.names == ["user_id", "embedding", "events"]
    assert found["user_id"].equals(rows["user_id"])
    assert found["events"].to_pylist() == [len(row["mcc"]) for row in rows.to_pylist()]
    assert {len(vector) for vector in found["embedding"].to_pylist()} == {MODEL.latent_dim}


@pytest.mark.parametrize("network", ["gru", "lstm"])
def test_scoring_gives_what_the_module_gives(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODEL.model_copy(update={"encoder": network})
    rows = to_rows(random_users(70, seed=6))
    scorer = scorer_of(encoder(model), LAYOUT)
    with torch.inference_mode():
        expected = scorer.module(Sequences.of(to_events(rows, LAYOUT))).numpy()
    np.testing.assert_allclose(vectors(scorer, rows), expected, atol=2e-6)
    for name, value in (("STEPS", 7), ("LONG", 20)):
        monkeypatch.setattr(scorers, name, value)
        np.testing.assert_allclose(vectors(scorer, rows), expected, atol=2e-6)
    assert isinstance(scorer.recurrence, FoldedGru) == (network == "gru")
    monkeypatch.setattr(recurrence, "FOLDED_BYTES", 100)
    np.testing.assert_allclose(vectors(scorer_of(encoder(model), LAYOUT), rows), expected, atol=2e-6)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 299), min_size=1, max_size=100, unique=True), st.sampled_from(["gru", "lstm"]))
def test_a_users_bits_do_not_depend_on_the_others(chosen: list[int], network: str) -> None:
    scorer, rows, expected = many(network)
    assert np.array_equal(vectors(scorer, rows.take(pa.array(chosen))), expected[chosen])


MANY: dict[str, Any] = {}


def many(network: str) -> tuple[SequenceScorer, pa.RecordBatch, np.ndarray]:
    """300 users of 1 to 400 events, and their embeddings when they are scored together."""
    if network not in MANY:
        model = MODEL.model_copy(update={"encoder": network, "latent_dim": 123})
        scorer = scorer_of(encoder(model), LAYOUT)
        rows = to_rows(random_users(300, seed=11, longest=400))
        MANY[network] = scorer, rows, vectors(scorer, rows)
    return MANY[network]


def test_a_lone_user_has_the_bits_of_a_full_block() -> None:
    scorer, rows, expected = many("gru")
    lengths = [len(row["mcc"]) for row in rows.to_pylist()]
    assert min(lengths) < LONG < max(lengths)
    for row in (0, 150, lengths.index(max(lengths)), lengths.index(min(lengths))):
        assert np.array_equal(vectors(scorer, rows.slice(row, 1)), expected[row : row + 1])


def test_an_artefact_gives_the_same_bits_and_holds_no_loss(made: Trained, scorer: SequenceScorer) -> None:
    rows = to_rows(random_users(20))
    again = COLES.load(pickle.loads(pickle.dumps(artefact(made))))
    assert np.array_equal(vectors(again, rows), vectors(scorer, rows))
    assert {name.split(".")[0] for name in made.tensors} == {"sequence", "beside_mean_R", "beside_std_R"}


def test_beside_the_state_stand_the_newest_age_the_number_of_events_and_their_span(scorer: SequenceScorer) -> None:
    rows = to_rows(random_users(9))
    found = vectors(scorer, rows)[:, scorer.module.state_dim :]
    ages = [[(row["as_of"] - time) / DAY for time in row["event_time"]] for row in rows.to_pylist()]
    plain = np.log1p([[own[-1], len(own), own[0]] for own in ages])
    expected = (plain - scorer.module.beside_mean_R.numpy()) / scorer.module.beside_std_R.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    without = scorer_of(encoder(MODEL.model_copy(update={"recency": False})), LAYOUT)
    assert without.module.state_dim == without.module.latent_dim == vectors(without, rows).shape[1] == 16


def test_an_untrained_scorer_has_the_weights_that_training_began_with(snapshot: str, made: Trained) -> None:
    rows = to_rows(random_users(12))
    untrained = COLES.untrained(artefact(made), TRAINING.seed)
    beginning = trained(snapshot, training=TRAINING.model_copy(update={"learning_rate": 1e-12}))
    np.testing.assert_allclose(vectors(untrained, rows), vectors(COLES.load(artefact(beginning)), rows), atol=1e-5)
    other = COLES.untrained(artefact(made), 99)
    assert not np.allclose(vectors(other, rows), vectors(untrained, rows), atol=1e-3)


def test_loading_a_version_leaves_torchs_generator_as_it_was(made: Trained) -> None:
    before = torch.random.get_rng_state()
    COLES.load(artefact(made))
    COLES.untrained(artefact(made), 7)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_weights_of_another_configuration_and_broken_ones_are_refused(made: Trained) -> None:
    wider = MODEL.model_copy(update={"latent_dim": 20})
    with pytest.raises(ModelError, match=r"coles-1: the weights are not those of its configuration:\n.*expected"):
        COLES.load(artefact(made, wider))
    with pytest.raises(ModelError, match="coles-1: the weights cannot be read"):
        COLES.load(replace(artefact(made), weights=b"none"))


def test_rows_of_another_manifest_and_ids_outside_the_vocabulary_are_refused(scorer: SequenceScorer) -> None:
    rows = to_rows(random_users(3))
    with pytest.raises(ModelError, match="column 'channel' is not in the snapshot"):
        scorer.score(rows.drop_columns(["channel"]))
    strange = [{**user, "mcc": [40] * len(user["mcc"])} for user in random_users(3)]
    with pytest.raises(ModelError, match="field 'mcc': ids from 40 to 40, the model's vocabulary has 0 to 8"):
        scorer.score(to_rows(strange))


def test_no_rows_give_no_rows(scorer: SequenceScorer) -> None:
    assert scorer.score(to_rows(random_users(3)).slice(0, 0))["embeddings"].num_rows == 0


# The probe


def test_earlier_rows_are_those_of_a_snapshot_of_that_date() -> None:
    users = random_users(30, seed=2, longest=12)
    rows, active = earlier(to_rows(users), DAYS)
    then = [
        {
            **user,
            **{name: user[name][:n] for name in (*SIZES, "amount")},
            "age": [a - DAYS * DAY for a in user["age"][:n]],
        }
        for user in users
        if (n := sum(age > DAYS * DAY for age in user["age"]))
    ]
    as_of = AS_OF.fromordinal(AS_OF.toordinal() - DAYS)
    assert rows.equals(to_rows(then, as_of))
    by_id = {user["user_id"]: user for user in users}
    assert active.tolist() == [min(by_id[u]["age"]) <= DAYS * DAY for u in rows["user_id"].to_pylist()]
    assert rows["as_of"].to_pylist() == [seconds(as_of)] * rows.num_rows


def test_linear_scores_rank_by_a_linear_rule_and_ignore_constant_columns() -> None:
    generator = np.random.default_rng(0)
    x = np.column_stack([generator.normal(size=(400, 3)), np.ones(400)]).astype(np.float32)
    truth = x[:, 0] - 2 * x[:, 1]
    scores = linear_scores(x[:200], truth[:200] > 0, x[200:])
    assert np.corrcoef(scores, truth[200:])[0, 1] > 0.95


# Refusals


def test_a_training_without_enough_users_or_events_is_refused(tmp_path: Path) -> None:
    def refused(folder: str, users: Any, **changes: Any) -> Any:
        return trained(write_snapshot(tmp_path / folder, users), **changes)

    with pytest.raises(SnapshotError, match="is empty: there is nobody to train on"):
        refused("empty", [])
    with pytest.raises(TrainingError, match=r"no user is on the (training|validation) side: 1 rows"):
        refused("one", random_users(1))
    one_to_learn = TRAINING.model_copy(update={"seed": next(seed for seed in range(99) if one_trains(seed))})
    with pytest.raises(TrainingError, match="a batch needs 2 users, and a process would have 1 for 1 batches"):
        refused("two", random_users(3), training=one_to_learn)
    with pytest.raises(TrainingError, match=r"no training user has more than 3 events, .* lower model\.slices\.min"):
        refused("short", random_users(40, longest=3))
    with pytest.raises(TrainingError, match="column 'amount' has values that are not finite"):
        refused("infinite", [{**user, "amount": [np.inf] * len(user["mcc"])} for user in random_users(40)])


def one_trains(seed: int) -> bool:
    """Whether a split of three users by this seed has one of them on the training side."""
    from gur_spark.splits import validation_side

    return int(validation_side(np.arange(3), TRAINING.validation_share, seed).sum()) == 2


def test_snapshots_of_different_columns_are_refused(snapshot: str, tmp_path: Path) -> None:
    from tests import sequence_data

    other = Path(write_snapshot(tmp_path / "other", random_users(20)))
    (other / "manifest.json").write_text(sequence_data.manifest(max_events=5).to_json())
    with pytest.raises(SnapshotError, match=r"the manifests of .* differ"):
        trained(snapshot, str(other))


def test_settings_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match=r"slices\.max 4 is below slices\.min 5"):
        Slices(min=5, max=4)


def test_the_card_says_what_is_learned() -> None:
    text = " ".join([MODEL.title(), *MODEL.learned()])
    assert "GRU" in text
    assert "3 slices of 3 to 12 events" in text
    assert "Beside the network's state" in text
    assert "Beside" not in " ".join(MODEL.model_copy(update={"recency": False}).learned())


def test_times_are_computed_before_they_are_rounded() -> None:
    """Two events a second apart, a year before: in float32 seconds they would be one moment."""
    user = {"user_id": 1, "age": [365 * DAY + 1, 365 * DAY], "mcc": [1, 1], "channel": [1, 1], "amount": [1.0, 1.0]}
    gap = to_events(to_rows([user]), LAYOUT).numbers_ND[1, TIMES.index("gap")]
    assert gap == np.float32(np.log1p(1 / DAY))
