"""Turn half a million videos into a scored, resampled, sharded speech dataset in a day."""

__version__ = "0.1.0"
