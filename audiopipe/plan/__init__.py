"""Assign videos to partitions and shards."""
