"""Benchmarks. They write their own tables, so that no number in them is typed by hand."""

# Minutes of audio per core in the pipeline benchmark: four videos, as many as a shard decodes at once. With one video,
# the start and the end of a shard would count more than the middle.
MINUTES = 69.0
