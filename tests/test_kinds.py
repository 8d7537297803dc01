"""The catalogue of kinds: found by name, and cheap to import."""

import subprocess
import sys

import pytest

from gur_spark.errors import ConfigError
from gur_spark.models.catalogue import DEFAULT, MODULES, all_kinds, find
from gur_spark.models.kind import Capability, ModelSection


def test_every_kind_is_found_by_its_own_name() -> None:
    assert [kind.name for kind in all_kinds()] == sorted(MODULES)
    for name in MODULES:
        assert find(name) is find(name)
        assert issubclass(find(name).config, ModelSection)
        assert find(name).config.model_fields["kind"].default == name
        assert find(name).can <= frozenset(Capability)
        assert find(name).writes
    assert DEFAULT in MODULES


@pytest.mark.parametrize(
    ("asked", "hint"), [("cole", "; did you mean 'coles'?"), ("Gur", "; did you mean 'gur'?"), ("zzz", "")]
)
def test_an_unknown_kind_is_refused_with_those_there_are_and_the_nearest(asked: str, hint: str) -> None:
    with pytest.raises(ConfigError) as error:
        find(asked)
    assert str(error.value) == f"unknown kind '{asked}'; expected one of {sorted(MODULES)}{hint}"


@pytest.mark.parametrize("module", ["gur_spark.models.kind", "gur_spark.models.catalogue", *sorted(MODULES.values())])
def test_what_a_configuration_imports_of_kinds_brings_in_neither_torch_nor_spark(module: str) -> None:
    heavy = ("torch", "lightning", "safetensors", "ptls", "pyspark", "delta")
    asked = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
