"""Benchmarks that make their own tables: no number in them is typed by hand."""
