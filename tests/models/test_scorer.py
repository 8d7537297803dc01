"""The scorer of the autoencoder: an untrained one shares the trained one's inputs, and none of its weights."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save

from gur_spark.batches.layout import Layout
from gur_spark.errors import ModelError
from gur_spark.models.gur.autoencoder import GUR
from gur_spark.models.gur.scorer import GurScorer, load_scorer, untrained_scorer
from gur_spark.models.kind import Artefact
from tests.aggregate_data import SIZES, random_events, tiny_manifest, to_rows
from tests.versions import MODEL, VOCABULARY

LAYOUT = Layout.of(tiny_manifest(), SIZES)


def artefact_of(**changes: Any) -> Artefact:
    """A version with a standardisation of its own."""
    model = MODEL.model_copy(update=changes)
    torch.manual_seed(99)
    module = GUR(LAYOUT, model)
    module.inputs.mean_T.copy_(torch.linspace(0, 1, len(module.inputs.mean_T)))
    return Artefact(
        version="gur-test",
        model=model,
        manifest=LAYOUT.manifest,
        vocabulary=VOCABULARY,
        weights=save(module.state_dict()),
        metrics={},
    )


def rows(users: int = 30) -> pa.RecordBatch:
    return to_rows(random_events(users, SIZES, ["amount"], seed=3, longest=30), tiny_manifest())


@pytest.mark.parametrize("changes", [{}, {"loss": {"mse": 1.0}, "tables": "frozen"}])
def test_an_untrained_encoder_shares_the_inputs_and_not_the_weights(changes: dict[str, Any]) -> None:
    artefact = artefact_of(**changes)
    state = torch.random.get_rng_state()
    first, again, other = (untrained_scorer(artefact, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    trained = load_scorer(artefact)
    inputs = trained.module.inputs.state_dict()
    # Trained tables are learned with the encoder; frozen ones are computed from the data, and so an input.
    shared = [name for name in inputs if "tables" not in name or changes]
    assert all(torch.equal(first.module.inputs.state_dict()[name], inputs[name]) for name in shared)
    weights = [scorer.module.encoder[0].weight for scorer in (first, again, other, trained)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])
    assert not first.module.training
    assert not np.allclose(first.vectors(rows()), trained.vectors(rows()))


def test_scores_are_rows_of_embeddings_in_the_order_of_the_users() -> None:
    scorer: GurScorer = load_scorer(artefact_of())
    read = rows().select(list(scorer.columns))
    made = scorer.score(read)
    assert made.keys() == {"embeddings"}
    embeddings = made["embeddings"]
    assert embeddings.schema.names == ["user_id", "embedding", "events"]
    assert embeddings["user_id"].to_pylist() == list(range(30))
    assert embeddings["events"].to_pylist() == rows()["events_30d"].to_pylist()
    np.testing.assert_array_equal(np.stack(embeddings["embedding"].to_pylist()), scorer.vectors(rows()))


def test_an_id_beyond_the_vocabulary_is_refused() -> None:
    lists = [[99] for _ in range(30)]
    position = rows().schema.get_field_index("mcc_ids")
    beyond = rows().set_column(position, "mcc_ids", pa.array(lists, pa.list_(pa.int32())))
    with pytest.raises(ModelError):
        load_scorer(artefact_of()).score(beyond)
