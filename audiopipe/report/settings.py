"""Render the parameters of a dataset, with their defaults."""

from __future__ import annotations

from collections.abc import Mapping

from audiopipe.config import RunConfig
from audiopipe.report import page
from audiopipe.report.page import Html, esc
from audiopipe.report.text import pluralize

__all__ = ["settings"]


def settings(config: Mapping[str, object], digest: str) -> Html:
    """Render, folded, the parameters that the bytes of an output depend on; those not at the default come first."""
    fields = RunConfig.model_fields
    defaults = RunConfig.of(catalog="-", output="-").output_fields()  # as a run records them: scorers have versions
    rows = [
        [name, str(value), str(defaults.get(name, fields[name].default)), str(fields[name].description)]
        for name, value in config.items()
        if name in fields
    ]
    changed = [row for row in rows if row[1] != row[2]]
    rows = [*changed, *(row for row in rows if row not in changed)]
    table = page.table(["parameter", "value", "default", "meaning"], rows, "lllw")
    summary = f"{pluralize(len(changed), 'parameter')} not at the default" if changed else "all at their defaults"
    values = ", ".join(f"<code>{esc(name)}={esc(value)}</code>" for name, value, *_ in changed)
    head = f"Parameters: {summary}{f': {values}' if values else ''}; digest <code>{esc(digest)}</code>"
    return Html(f"<details><summary>{head}</summary>{table.markup}</details>")
