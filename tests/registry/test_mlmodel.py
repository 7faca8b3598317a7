"""The file by which MLflow loads a version (assets/registry/mlmodel.py): what it may load, and that it is verified."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from assets.exceptions import BundleError, RegistryError
from assets.home import Home
from assets.registry.registry import Registry
from assets.scoring.pyfunc import _registered

A, B = "a" * 16, "b" * 16
Promote = Callable[..., Any]


def mlmodel(home: Home, version: str) -> Path:
    registry = Registry(home)
    return registry.copy_here(registry.version(version)) / "MLmodel"


def test_it_names_no_code_but_our_own(home: Home, promoted: Promote) -> None:
    promoted(A)
    described = yaml.safe_load(mlmodel(home, "1").read_text())
    assert set(described["flavors"]) == {"python_function"}
    flavor = described["flavors"]["python_function"]
    assert {name: flavor[name] for name in ("loader_module", "data")} == {
        "loader_module": "assets.scoring.pyfunc",
        "data": "bundle",
    }
    assert set(flavor) == {"loader_module", "data", "python_version"}
    assert _registered(Registry(home), mlmodel(home, "1").with_name("bundle")) == Registry(home).version("1")


def test_mlflow_reads_the_fields_of_the_source(home: Home, promoted: Promote) -> None:
    from mlflow.models import Model

    promoted(A)
    signature = Model.load(str(mlmodel(home, "1"))).signature
    assert signature.inputs.input_names() == list(home.domain.source.fields)
    assert signature.outputs.input_names() == ["predicted", "confidence", "reason"]


def test_a_changed_one_is_a_problem_and_not_loaded(home: Home, promoted: Promote) -> None:
    promoted(A)
    assert Registry(home).problem() is None
    described = yaml.safe_load(mlmodel(home, "1").read_text())
    described["flavors"]["python_function"]["code"] = "code"
    mlmodel(home, "1").write_text(yaml.safe_dump(described))
    assert "MLmodel, by which MLflow loads it, is not the file that was written" in (Registry(home).problem() or "")
    with pytest.raises(BundleError, match="not the files of a version that is registered"):
        _registered(Registry(home), mlmodel(home, "1").with_name("bundle"))
    mlmodel(home, "1").unlink()
    assert "MLmodel" in (Registry(home).problem() or "")


def test_an_unjudged_version_is_not_loaded(home: Home, promoted: Promote, bundle_of: Any, evaluation_of: Any) -> None:
    promoted(A)
    Registry(home).register(bundle_of(B), evaluation_of(B))
    with pytest.raises(RegistryError, match="version 2 was never judged"):
        _registered(Registry(home), mlmodel(home, "2").with_name("bundle"))


def test_a_version_of_an_earlier_evergreen_has_none(home: Home, promoted: Promote) -> None:
    """Its bundle lies where the files of a version are now beside each other."""
    promoted(A)
    folder = mlmodel(home, "1").parent
    bundle = (folder / "bundle").rename(folder.with_name("old"))
    mlmodel(home, "1").unlink()
    folder.rmdir()
    bundle.rename(folder)
    Registry(home).client.delete_model_version_tag("text-classifier", "1", "mlmodel_sha256")
    assert Registry(home).problem() is None
    assert Registry(home).fetch("1") == folder
