"""Neural networks as plain torch modules with their original weights."""
