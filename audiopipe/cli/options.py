"""Options made from the fields of RunConfig, so that no parameter is described twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

import click

from audiopipe.config import RunConfig

__all__ = ["config_options", "output_options"]


def _click_type(annotation: Any) -> Any:
    """The click type of a RunConfig field; None in a union means 'none' switches it off."""
    options = [option for option in get_args(annotation) if option is not type(None)] or [annotation]
    if get_origin(annotation) is Literal:
        return click.Choice([str(choice) for choice in get_args(annotation)])
    return _Optional(options[0]) if type(None) in get_args(annotation) else options[0]


class _Optional(click.ParamType[Any]):
    """A value, or 'none'."""

    def __init__(self, kind: type) -> None:
        self.kind = click.types.convert_type(kind)
        self.name = f"{self.kind.name}|none"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        if value is None or str(value).lower() == "none":
            return None
        return self.kind.convert(value, parameter, context)


def config_options(command: Callable[..., None]) -> Callable[..., None]:
    """One option for each field of RunConfig, in their order."""
    for name, info in reversed(RunConfig.model_fields.items()):
        flag = f"--{name.replace('_', '-')}"
        if info.annotation is bool:
            flag += f"/--no-{name.replace('_', '-')}"
        shown = {} if info.is_required() else {"default": info.default, "show_default": info.default is not None}
        option = click.option(
            flag, name, type=_click_type(info.annotation), required=info.is_required(), help=info.description, **shown
        )
        command = option(command)
    return command


def output_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that goes on with an output from what lies in it."""
    fields = RunConfig.model_fields
    options = [
        click.argument("output"),
        *(
            click.option(f"--{name}", type=_click_type(fields[name].annotation), help=fields[name].description)
            for name in ("workers", "cluster", "ledger", "scratch", "device")
        ),
        click.option("--json", "as_json", is_flag=True, help="print the summary as JSON"),
        click.option("--quiet", is_flag=True, help="no live progress"),
    ]
    for option in reversed(options):
        command = option(command)
    return command
