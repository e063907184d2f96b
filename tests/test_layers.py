"""Imports point down the layers, and what a module exports exists."""

import ast
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import audiopipe
from audiopipe import errors

MODULES = sorted(info.name for info in pkgutil.walk_packages(audiopipe.__path__, "audiopipe."))

# A package imports from lower layers only, and not from another package of its layer. A package or module that is
# on no layer fails, and so does an entry that names nothing.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"languages", "metrics", "redaction"}),
    frozenset({"errors", "kernels", "parameter_messages", "types"}),
    frozenset({"conditions", "extras"}),
    frozenset({"models"}),
    frozenset({"scorers"}),
    frozenset({"config"}),  # the digest covers the scorers' versions
    frozenset({"estimation", "ledger", "store"}),
    frozenset({"catalog", "cluster", "media", "segment"}),
    frozenset({"plan"}),
    frozenset({"dataset"}),
    frozenset({"pipeline"}),
    frozenset({"driver"}),
    frozenset({"report"}),
    frozenset({"bench"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
LAYER_OF = {package: number for number, packages in enumerate(LAYERS) for package in packages}
DASK_PACKAGES = {"cluster", "driver"}


def package_of(module: str) -> str:
    return module.split(".")[1]


@cache
def source_of(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


@cache
def import_statements(module: str) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """List the statements that import at run time, inside functions too; not those for a type checker alone."""

    def walk(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    return tuple(walk(ast.parse(source_of(module))))


def module_behind(module: str, name: str) -> str:
    """Return the module that `from module import name` means: a submodule, or where a re-exported name comes from."""
    if f"{module}.{name}" in MODULES:
        return f"{module}.{name}"
    if module in MODULES:
        for statement in import_statements(module):
            if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("audiopipe."):
                for alias in statement.names:
                    if name == (alias.asname or alias.name):
                        return module_behind(statement.module or "", alias.name)
    return module


@cache
def imports_of(module: str) -> frozenset[str]:
    imported: set[str] = set()
    for statement in import_statements(module):
        if isinstance(statement, ast.Import):
            imported.update(alias.name for alias in statement.names)
        elif statement.module:
            imported.update(
                module_behind(statement.module, alias.name) for alias in statement.names if alias.name != "__version__"
            )
    return frozenset(imported)


def test_every_package_is_on_exactly_one_layer() -> None:
    assert sorted(LAYER_OF) == sorted({package_of(module) for module in MODULES})
    assert sum(map(len, LAYERS)) == len(LAYER_OF)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    assert "audiopipe" not in imports_of(module), "the public face imports the packages, not the other way round"
    package = package_of(module)
    for name in imports_of(module):
        if name.startswith("audiopipe.") and package_of(name) != package:
            assert LAYER_OF[package_of(name)] < LAYER_OF[package], f"{module} imports {name}"


def test_a_reexported_name_counts_as_its_own_module() -> None:
    assert module_behind("audiopipe.kernels", "loudness") == "audiopipe.kernels.loudness"
    assert module_behind("audiopipe.ledger", "Ledger") == "audiopipe.ledger.protocol"
    assert module_behind("audiopipe.types", "Shard") == "audiopipe.types"


def test_imports_have_no_cycle() -> None:
    edges = {module: {name for name in imports_of(module) if name in MODULES} - {module} for module in MODULES}
    while leaves := [module for module, needed in edges.items() if not needed & edges.keys()]:
        for module in leaves:
            del edges[module]
    while unused := edges.keys() - set().union(*edges.values()):  # these lead to a cycle and are not on it
        for module in unused:
            del edges[module]
    cycle = {module: sorted(needed & edges.keys()) for module, needed in edges.items()}
    assert not cycle, f"these import each other: {cycle}"


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("audiopipe.kernels")])
def test_kernels_import_torch_and_numpy_alone(module: str) -> None:
    third_party = {name.split(".")[0] for name in imports_of(module)} - {"audiopipe", "numpy", "torch"}
    assert not {name for name in third_party if importlib.util.find_spec(name).origin.find("site-packages") > 0}  # type: ignore[union-attr]
    imported = {name for name in imports_of(module) if name.startswith("audiopipe")} - {"audiopipe.metrics"}
    assert all(name.startswith("audiopipe.kernels") for name in imported)


@pytest.mark.parametrize("module", MODULES)
def test_only_driver_and_cluster_import_dask(module: str) -> None:
    dask = {name for name in imports_of(module) if name.split(".")[0] in ("dask", "distributed", "dask_cuda")}
    assert not dask or package_of(module) in DASK_PACKAGES, f"{module} imports {dask}"


@pytest.mark.parametrize("module", MODULES)
def test_modules_have_at_most_300_lines(module: str) -> None:
    assert len(source_of(module).splitlines()) <= 300


@pytest.mark.parametrize("module", [name for name in MODULES if not name.rsplit(".", 1)[-1].startswith("_")])
def test_all_lists_only_existing_names(module: str) -> None:
    loaded = importlib.import_module(module)
    for name in getattr(loaded, "__all__", ()):
        assert hasattr(loaded, name), f"{module}.__all__ names {name}"


def test_the_error_tree_is_complete() -> None:
    drawn = errors.__doc__ or ""
    for name in errors.__all__:
        assert name in drawn, f"{name} is missing in the tree at the top of errors.py"
        assert issubclass(getattr(errors, name), errors.AudiopipeError)
