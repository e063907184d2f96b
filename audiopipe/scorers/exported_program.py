"""Load a program that `torch.export.save` wrote, after a check that it holds data and ATen operators alone.

`torch.export.load` trusts its file: it falls back from `weights_only` to all of pickle, loads shared libraries,
evaluates expressions and guards as Python, and resolves operators by attributes of `torch`, through which any module is
in reach. So files with pickled weights, legacy weights, custom objects or libraries, and with names, operators or
expressions that are not of these lists, are refused before PyTorch reads them. Guards are not compiled.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from audiopipe.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["check_program", "load_program"]

MEMBERS = re.compile(
    r"[^/]+/(models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)|"
    r"data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt|"
    r"archive_format|archive_version|version|byteorder|\.data/(version|serialization_id))"
)
OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims)\.\w+\.\w+|torch\.sym_\w+|torch\._sym_\w+|math\.\w+|"
    r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_)|"
    r"torch\.ops\.higher_order\.(cond|while_loop|scan|map_impl|wrap_with_set_grad_enabled|wrap_with_autocast)"
)
FORBIDDEN_OPERATORS = re.compile(r"torch\.ops\.aten\.(from_file|save|load|set_data|_print|warn)\b")
NAME = re.compile(r"[\w.:/ -]*")  # no character that ends a name in generated code
WORD = re.compile(r"[A-Za-z_]\w*")
EXPRESSION = re.compile(r"[\w\s(),+*/=<>-]*")
SYMBOL = re.compile(r"Symbol\('[A-Za-z]\w*'")
FUNCTION_NAMES = """
    Symbol positive integer nonnegative nonzero real True False Integer Rational Float Add Mul Pow Max Min Mod Abs Eq Ne
    Lt Le Gt Ge And Or Not StrictLessThan StrictGreaterThan LessThan GreaterThan Equality Unequality FloorDiv CeilDiv
    CleanDiv ModularIndexing PythonMod Where IntTrueDiv FloatTrueDiv TruncToInt TruncToFloat FloorToInt CeilToInt
    RoundToInt RoundDecimal ToFloat IsNonOverlappingAndDenseIndicator floor ceiling sqrt oo int_oo
    """
FUNCTIONS = frozenset(FUNCTION_NAMES.split())
FREE_TEXT = {"as_string", "guards_code", "metadata", "in_spec", "out_spec", "torch_version"}


def load_program(data: bytes, device: torch.device) -> Callable[..., Any]:
    """Return the program in a file as a function on a device.

    Raises:
        ConfigError: it is not such a file, or holds what `check_program` refuses.
    """
    import torch  # noqa: PLC0415
    from torch.export.passes import move_to_device_pass  # noqa: PLC0415

    check_program(data)
    with warnings.catch_warnings():
        # The loader makes tensors of bytes, which nothing writes to.
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        program = move_to_device_pass(torch.export.load(io.BytesIO(data)), str(device))
    return program.module(check_guards=False)


def check_program(data: bytes) -> None:
    """Check that a file is an exported program of data and ATen operators.

    Raises:
        ConfigError: it is not.
    """
    import torch  # noqa: PLC0415

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            for name in names:
                if not MEMBERS.fullmatch(name) or names.count(name) > 1 or name.split("/")[0] != names[0].split("/")[0]:
                    raise ConfigError(f"it has a member {name!r}, which could run code")
            root = names[0].split("/")[0]
            for kind in ("weights", "constants"):
                _check_payloads(json.loads(archive.read(f"{root}/data/{kind}/model_{kind}_config.json")), kind)
            torch.load(io.BytesIO(archive.read(f"{root}/data/sample_inputs/model.pt")), weights_only=True)
            _check_strings(json.loads(archive.read(f"{root}/models/model.json")))
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged files raise errors of many kinds
        text = str(error).partition("\n")[0]
        raise ConfigError(f"it is not a program that torch.export.save wrote: {type(error).__name__}: {text}") from None


def _check_payloads(config: dict[str, Any], kind: str) -> None:
    for name, payload in config["config"].items():
        if payload["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", payload["path_name"]):
            raise ConfigError(f"its {kind} have the pickled object {name!r}, which could run code")


def _check_strings(model: dict[str, Any]) -> None:
    """Check all texts of a model that PyTorch resolves, evaluates or writes into code."""
    for key, text in _texts("", model):
        if key == "target":
            allowed = bool(OPERATORS.fullmatch(text)) and not FORBIDDEN_OPERATORS.match(text)
        elif key == "expr_str":
            plain = SYMBOL.sub("Symbol(", text)
            allowed = bool(EXPRESSION.fullmatch(plain)) and set(WORD.findall(plain)) <= FUNCTIONS
        else:
            allowed = bool(NAME.fullmatch(text))
        if not allowed:
            raise ConfigError(f"it has the {key or 'name'} {text[:100]!r}, which is not allowed")


def _texts(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the keys and texts of a JSON document, names of fields included, without those that are only read."""
    waiting: list[tuple[str, Any]] = [(key, value)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, dict):
            yield from (("", name) for name in value)
            waiting.extend((name, item) for name, item in value.items() if name not in FREE_TEXT)
        elif isinstance(value, list):
            waiting.extend((key, item) for item in value)
