"""The parameters that a dataset was made with, beside their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audiopipe.config import RunConfig
from audiopipe.report import page
from audiopipe.report.page import Html, esc
from audiopipe.report.text import plural

__all__ = ["settings"]


def settings(config: Mapping[str, Any], digest: str) -> Html:
    """Folded away: every parameter that the bytes of an output depend on, those with another value than usual first."""
    fields = RunConfig.model_fields
    rows = [
        [name, str(value), str(fields[name].default), str(fields[name].description)]
        for name, value in config.items()
        if name in fields
    ]
    changed = [row for row in rows if row[1] != row[2]]
    table = page.table(
        ["parameter", "value", "default", "what it is"], [*changed, *(r for r in rows if r not in changed)], "lllw"
    )
    which = f"{plural(len(changed), 'parameter')} not at the default" if changed else "all at their defaults"
    told = ", ".join(f"<code>{esc(name)}={esc(value)}</code>" for name, value, *_ in changed)
    head = f"Parameters: {which}{f': {told}' if told else ''}; digest <code>{esc(digest)}</code>"
    return Html(f"<details><summary>{head}</summary>{table.markup}</details>")
