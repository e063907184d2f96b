"""Imports point down the layers, and what a module exports is what it has."""

import ast
import importlib
import importlib.util
import pkgutil
from pathlib import Path

import pytest

import audiopipe
from audiopipe import errors

MODULES = sorted(info.name for info in pkgutil.walk_packages(audiopipe.__path__, "audiopipe."))

# A package imports from lower layers only, and not from another package of its own layer. A package or module that is
# on no layer fails, and so does an entry that names nothing.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "kernels", "types"}),
    frozenset({"config"}),
    frozenset({"estimation", "ledger", "models", "store"}),
    frozenset({"catalog", "cluster", "media", "segment"}),
    frozenset({"plan"}),
    frozenset({"dataset"}),
    frozenset({"pipeline"}),
    frozenset({"driver"}),
    frozenset({"report"}),
    frozenset({"bench"}),
    frozenset({"cli"}),
)
LAYER_OF = {package: number for number, packages in enumerate(LAYERS) for package in packages}
DASK_PACKAGES = {"cluster", "driver"}


def package_of(module: str) -> str:
    return module.split(".")[1]


def imports_of(module: str) -> set[str]:
    """The modules that a module imports at run time, inside functions too; not those for a type checker alone."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    imported: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(Path(spec.origin).read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        nodes.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "audiopipe":
            imported.update(f"audiopipe.{alias.name}" for alias in node.names if alias.name != "__version__")
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module)
    return imported


def test_every_package_is_on_exactly_one_layer() -> None:
    assert sorted(LAYER_OF) == sorted({package_of(module) for module in MODULES})
    assert sum(map(len, LAYERS)) == len(LAYER_OF)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    package = package_of(module)
    for name in imports_of(module):
        if name.startswith("audiopipe.") and package_of(name) != package:
            assert LAYER_OF[package_of(name)] < LAYER_OF[package], f"{module} imports {name}"


def test_modules_do_not_import_one_another_in_a_circle() -> None:
    edges = {module: {name for name in imports_of(module) if name in MODULES} - {module} for module in MODULES}
    while leaves := [module for module, needed in edges.items() if not needed & edges.keys()]:
        for module in leaves:
            del edges[module]
    assert not edges, f"these import one another: {edges}"


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("audiopipe.kernels")])
def test_kernels_import_torch_and_numpy_alone(module: str) -> None:
    third_party = {name.split(".")[0] for name in imports_of(module)} - {"audiopipe", "numpy", "torch"}
    assert not {name for name in third_party if importlib.util.find_spec(name).origin.find("site-packages") > 0}  # type: ignore[union-attr]
    assert all(name.startswith("audiopipe.kernels") for name in imports_of(module) if name.startswith("audiopipe"))


@pytest.mark.parametrize("module", MODULES)
def test_only_driver_and_cluster_import_dask(module: str) -> None:
    dask = {name for name in imports_of(module) if name.split(".")[0] in ("dask", "distributed", "dask_cuda")}
    assert not dask or package_of(module) in DASK_PACKAGES, f"{module} imports {dask}"


@pytest.mark.parametrize("module", MODULES)
def test_modules_have_at_most_300_lines(module: str) -> None:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    assert len(Path(spec.origin).read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("module", [name for name in MODULES if not name.rsplit(".", 1)[-1].startswith("_")])
def test_all_names_what_is_there(module: str) -> None:
    loaded = importlib.import_module(module)
    for name in getattr(loaded, "__all__", ()):
        assert hasattr(loaded, name), f"{module}.__all__ names {name}"


def test_the_error_tree_is_drawn_as_it_is() -> None:
    drawn = errors.__doc__ or ""
    for name in errors.__all__:
        assert name in drawn, f"{name} is missing in the tree at the top of errors.py"
        assert issubclass(getattr(errors, name), errors.AudiopipeError)
