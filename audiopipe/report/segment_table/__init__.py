"""The segment table: search, filter, sort and hear the segments of a dataset.

In a saved report it works on a random sample that the page embeds. In JupyterLab the kernel answers for all segments.
"""

from audiopipe.report.segment_table.table import SegmentTable, segment_table

__all__ = ["SegmentTable", "segment_table"]
