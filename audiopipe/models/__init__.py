"""Neural networks as plain torch modules with their own weights."""
