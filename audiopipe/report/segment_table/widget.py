"""The kernel's side of a segment table in JupyterLab, which answers its queries.

Requests and answers are messages of a Jupyter comm, not of an HTTP port: they pass through the connection that
JupyterLab already has and has authenticated, so that the table works behind every proxy, and no port is open that
another user of the machine could reach.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from audiopipe.extras import require_extra
from audiopipe.report.segment_table.queries import SegmentQueries

with require_extra("notebooks", "a segment table in JupyterLab"):
    import anywidget
    import traitlets

__all__ = ["SegmentWidget"]


class SegmentWidget(anywidget.AnyWidget):
    """A widget without a view, which takes over the table in the output of a cell."""

    settings = traitlets.Dict().tag(sync=True)

    def __init__(self, script: str, settings: Mapping[str, Any], queries: SegmentQueries) -> None:
        super().__init__(_esm=script, settings=dict(settings))
        self._queries, self._lock = queries, threading.Lock()
        self.on_msg(self._answer)

    def _answer(self, _widget: object, request: Mapping[str, Any], _buffers: object) -> None:
        # Recent kernels handle the messages of widgets in threads, while a cell is executed.
        with self._lock:
            try:
                answer = self._queries.answer(request)
            except Exception as error:
                self.send({"id": request.get("id"), "error": f"{type(error).__name__}: {error}"})
                raise
        buffers = [] if answer.data is None else [answer.data]
        self.send({"id": request.get("id"), **answer.body}, buffers)
