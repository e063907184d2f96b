"""Imports go one way, and what a module says it offers is what it has."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import audiopipe

PACKAGE = Path(audiopipe.__file__).parent
MODULES = sorted(info.name for info in pkgutil.walk_packages(audiopipe.__path__, "audiopipe."))

# A room's floor: it may import from rooms on lower floors, and from its own only what `SIDEWAYS` names.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"audiopipe", "types", "errors", "kernels"}),
    frozenset({"config"}),
    frozenset(
        {
            *("batch", "catalog", "catalog_files", "catalog_rows", "catalog_supabase", "commit", "demo", "encode"),
            *("ledger", "media", "output", "partition", "plan", "plan_files", "prefetch", "score", "segment", "shard"),
            *("store_errors", "totals", "generations", "shard_check"),
            *(
                "source",
                "stages",
                "store",
                "supabase_client",
                "times",
                "allocator",
                "tables",
                "ring",
                "decoder",
                "decoder_forks",
                "budget",
                "device",
                "voice",
                "voice_model",
                "voice_times",
                "dead_letters",
                "duplicates",
                "fingerprint",
                "hostile",
                "copies",
                "scratch",
                "source_access",
                "store_uploads",
            ),
        }
    ),
    frozenset({"pipeline"}),
    frozenset(
        {
            *(
                "cluster",
                "cuda_workers",
                "engines",
                "gc",
                "heartbeat",
                "isolate",
                "notebook",
                "planner",
                "report",
                "retry",
            ),
            *(
                "monitor",
                "kubernetes_tls",
                "monitor_picture",
                "run",
                "ssh_hosts",
                "start_limit",
                "stop",
                "verify",
                "worker_names",
            ),
        }
    ),
    frozenset({"bench"}),
    frozenset({"cli"}),
)
DASK_ROOMS = {"cluster", "cuda_workers", "kubernetes_tls", "run", "ssh_hosts", "start_limit"}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def imports_of(module: str) -> set[str]:
    """Everything that a module imports when it is run, in functions too, but for what only a type checker reads."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(Path(spec.origin).read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        nodes.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "audiopipe":
            found.update(f"audiopipe.{alias.name}" for alias in node.names if alias.name != "__version__")
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def floor_of(room: str) -> int:
    floors = [number for number, rooms in enumerate(FLOORS) if room in rooms]
    assert floors, f"module '{room}' is new: give it its floor in tests/test_layers.py"
    return floors[0]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_nothing_from_a_floor_above(module: str) -> None:
    mine = floor_of(room_of(module))
    for name in imports_of(module):
        if name.startswith("audiopipe"):
            assert floor_of(room_of(name)) <= mine, f"{module} imports {name}"


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("audiopipe.kernels")])
def test_a_kernel_imports_nothing_of_the_rest(module: str) -> None:
    own = {name for name in imports_of(module) if name.startswith("audiopipe")}
    assert all(name.startswith("audiopipe.kernels") for name in own), own


@pytest.mark.parametrize("module", MODULES)
def test_only_the_driver_and_the_cluster_know_dask(module: str) -> None:
    dask = {name for name in imports_of(module) if name.split(".")[0] in ("dask", "distributed", "dask_cuda")}
    assert not dask or room_of(module) in DASK_ROOMS, f"{module} imports {dask}"


def test_no_rooms_import_one_another_in_a_circle() -> None:
    edges = {room_of(module): set[str]() for module in MODULES}
    for module in MODULES:
        edges[room_of(module)] |= {room_of(name) for name in imports_of(module) if name.startswith("audiopipe.")}
    for room, needed in edges.items():
        needed.discard(room)
    while leaves := [room for room, needed in edges.items() if not needed & edges.keys()]:
        for room in leaves:
            del edges[room]
    assert not edges, f"these import one another: {edges}"


@pytest.mark.parametrize("module", [name for name in MODULES if not name.rsplit(".", 1)[-1].startswith("_")])
def test_all_names_what_is_there(module: str) -> None:
    loaded = importlib.import_module(module)
    for name in getattr(loaded, "__all__", ()):
        assert hasattr(loaded, name), f"{module}.__all__ names {name}"


def test_the_error_tree_is_drawn_as_it_is() -> None:
    from audiopipe import errors

    drawn = errors.__doc__ or ""
    for name in errors.__all__:
        assert name in drawn, f"{name} is missing in the tree at the top of errors.py"
        assert issubclass(getattr(errors, name), errors.AudiopipeError)
