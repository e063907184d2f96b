"""Reports: what the notebooks show, and the lines that the command prints.

`progress` and `quality` read a run and draw it; `page`, `figure` and `css` are how everything looks; `export` makes
one HTML file of a saved notebook. Nothing here changes a run.
"""

from audiopipe.report.export import export, text_of
from audiopipe.report.summary import summary_lines

__all__ = ["export", "summary_lines", "text_of"]
