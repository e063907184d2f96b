"""Benchmarks that make their own tables: no number in them is typed by hand."""

# Of audio for each core of the pipeline's bench. Four videos, as many as a shard has under way at once: of a single
# one the beginning and the end are measured more than the middle.
MINUTES = 69.0
