"""Weights of an artefact: safetensors, checked against the module that they are for."""

from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from gur_spark.errors import ModelError
from gur_spark.models.kind import Artefact


def load_weights(module: nn.Module, artefact: Artefact) -> None:
    """Give a module the weights of an artefact.

    Raises:
        ModelError: they cannot be read, or their names or shapes are not those of the module.
    """
    try:
        weights = load(artefact.weights)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"model {artefact.version}: the weights cannot be read: {error}") from error
    check_shapes(artefact.version, module.state_dict(), weights)
    module.load_state_dict(weights)


def check_shapes(version: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raise ModelError where names or shapes differ; the message lists each."""
    shapes = [{name: tuple(tensor.shape) for name, tensor in side.items()} for side in (expected, found)]
    names = sorted(name for name in shapes[0].keys() | shapes[1].keys() if shapes[0].get(name) != shapes[1].get(name))
    if names:
        lines = [f"{n}: expected {shapes[0].get(n, 'none')}, got {shapes[1].get(n, 'none')}" for n in names]
        raise ModelError(f"model {version}: the weights are not those of its configuration:\n  " + "\n  ".join(lines))
