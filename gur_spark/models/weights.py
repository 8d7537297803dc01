"""Weights of an artefact: safetensors, checked against the module that they belong to."""

from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from gur_spark.errors import ModelError
from gur_spark.models.kind import Artefact


def read_weights(artefact: Artefact) -> dict[str, Tensor]:
    """Tensors of an artefact by name.

    Raises:
        ModelError: they cannot be read.
    """
    try:
        return load(artefact.weights)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"model {artefact.version}: the weights cannot be read: {error}") from error


def set_weights(module: nn.Module, weights: Mapping[str, Tensor], version: str) -> None:
    """Give a module the weights of a version.

    Raises:
        ModelError: their names or shapes are not those of the module; the message lists each.
    """
    expected = module.state_dict()
    shapes = [{name: tuple(tensor.shape) for name, tensor in side.items()} for side in (expected, weights)]
    names = sorted(name for name in shapes[0].keys() | shapes[1].keys() if shapes[0].get(name) != shapes[1].get(name))
    if names:
        lines = [f"{n}: expected {shapes[0].get(n, 'none')}, got {shapes[1].get(n, 'none')}" for n in names]
        raise ModelError(f"model {version}: the weights are not those of its configuration:\n  " + "\n  ".join(lines))
    module.load_state_dict(weights)
