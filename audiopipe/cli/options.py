"""Derive command options from the fields of RunConfig, so that each parameter is described once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from audiopipe.config import RunConfig
from audiopipe.config.checks import is_off
from audiopipe.errors import ConfigError
from audiopipe.parameter_messages import describe_unknown

__all__ = ["Command", "config_options", "execution_options", "output_options", "use_file"]

Command = Callable[..., None]

# Parameters of a command that continues an existing output.
EXECUTION_FIELDS = (
    *("workers", "cluster", "ledger", "scratch", "device", "source_prefix", "max_failed_share", "max_missing_share"),
    *("retries", "decode_timeout_s", "decoders", "shards_in_flight", "metrics_address"),
)


class _Optional(click.ParamType[object]):
    """A click type for a value or the word 'none', which becomes None."""

    def __init__(self, kind: type) -> None:
        self.annotation = kind | None
        self.kind = click.types.convert_type(kind)
        self.name = f"{self.kind.name}|none"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> object:
        if is_off(value, self.annotation):
            return None
        return self.kind.convert(value, parameter, context)


def _click_type(annotation: Any) -> click.ParamType[Any] | type:
    """Return the click type of a RunConfig field."""
    if get_origin(annotation) is Literal:
        return click.Choice([str(choice) for choice in get_args(annotation)])
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)] or [annotation]
    return _Optional(kinds[0]) if type(None) in get_args(annotation) else kinds[0]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def config_options(command: Command) -> Command:
    """Add one option for each field of RunConfig, in the fields' order."""
    for name, info in reversed(RunConfig.model_fields.items()):
        flag = _flag(name)
        if info.annotation is bool:
            flag += f"/--no-{name.replace('_', '-')}"
        default = {} if info.is_required() else {"default": info.default, "show_default": info.default is not None}
        option = click.option(
            flag, name, type=_click_type(info.annotation), required=info.is_required(), help=info.description, **default
        )
        command = option(command)
    return command


def use_file(context: click.Context, option: click.Parameter, file: Path | None) -> None:
    """Take the parameters of a YAML file as defaults of a command's options.

    Raises:
        ConfigError: the file is not a mapping of parameters, or has an unknown one.
    """
    if file is None:
        return
    import yaml

    fields = RunConfig.model_fields
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: expected lines such as 'language: en'")
    for name in values:
        if name not in fields:
            raise ConfigError(f"{file}: {describe_unknown(str(name), fields)}")
    # The command writes mappings and lists as texts, and click takes None for an option that was not given.
    values = {name: _to_text(value) for name, value in values.items()}
    words = {name: "none" for name, value in values.items() if is_off(value, fields[name].annotation)}
    context.default_map = {**(context.default_map or {}), **values, **words}


def _to_text(value: object) -> object:
    """Write a mapping as NAME=VALUE,… and a list with commas; return another value as it is."""
    if isinstance(value, dict):
        return ",".join(f"{name}={item}" for name, item in value.items())
    return ",".join(map(str, value)) if isinstance(value, list) else value


def output_options(command: Command) -> Command:
    """Add the argument and the options of a command that continues an existing output."""
    return click.argument("output")(execution_options(command))


def execution_options(command: Command) -> Command:
    """Add the options that say where and how a command works."""
    fields = RunConfig.model_fields
    decorators = [
        *(
            click.option(_flag(name), name, type=_click_type(fields[name].annotation), help=fields[name].description)
            for name in EXECUTION_FIELDS
        ),
        click.option("--json", "as_json", is_flag=True, help="print the summary as JSON"),
        click.option("--quiet", is_flag=True, help="do not show live progress"),
    ]
    for decorator in reversed(decorators):
        command = decorator(command)
    return command
