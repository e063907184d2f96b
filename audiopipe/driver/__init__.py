"""Plan a run, submit its shards, retry, record and finalize."""
