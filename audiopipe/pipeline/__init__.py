"""Process one shard, from its sources to its commit."""
