"""The reasons to drop a segment for its times, before it is measured."""

__all__ = ["BAD_TIMES", "PAST_END", "TOO_LONG", "TOO_SHORT"]

BAD_TIMES = "bad_times"  # `transcript.is_invalid`: NaN, end before start, or end before the audio starts
PAST_END = "past_end"  # starts after the end of the audio, or has text of which a part lies there
TOO_SHORT = "too_short"  # less than `min_segment_s`, maybe because the audio ends
TOO_LONG = "too_long"  # more than `max_segment_s`
