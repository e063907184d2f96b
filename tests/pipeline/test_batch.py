import numpy as np
from factories import clip, config
from hypothesis import given, settings
from hypothesis import strategies as st

from audiopipe.pipeline.batch import MEGABYTE, Batch, batch_clips
from audiopipe.types import Clip, Span


def bare(frames, rate=16_000, channels=1, dtype=np.int16, index=0, reason=None):
    return Clip("v", index, Span(0, 1), rate, np.zeros((channels, frames), dtype), reason)


def batch_indexes(events_out):
    return [[c.index for c in item.clips] for item in events_out if isinstance(item, Batch)]


clips = st.builds(
    bare,
    frames=st.integers(1, 60_000),
    rate=st.sampled_from([16_000, 44_100]),
    channels=st.sampled_from([1, 2]),
    dtype=st.sampled_from([np.int16, np.float32]),
    reason=st.sampled_from([None, None, None, "too_short"]),
)


@given(st.lists(clips, max_size=60), st.integers(1, 9), st.sampled_from([1, 2]))
@settings(max_examples=60)
def test_every_clip_comes_once_in_a_batch_that_fits_together(drawn, size, batch_queue_mb):
    events = [Clip(c.video_id, i, c.span, c.sample_rate_hz, c.pcm, c.drop_reason) for i, c in enumerate(drawn)]
    limits = config(batch_segments=size, batch_mb=1, batch_queue_mb=batch_queue_mb)
    events_out = list(batch_clips(iter(events), limits))
    members = [c for item in events_out for c in (item.clips if isinstance(item, Batch) else [item])]
    assert sorted(c.index for c in members) == list(range(len(events)))
    for batch in (item for item in events_out if isinstance(item, Batch)):
        assert len(batch.clips) <= size
        assert len({(c.sample_rate_hz, c.pcm.shape[0], c.pcm.dtype) for c in batch.clips}) == 1
        assert all(c.drop_reason is None for c in batch.clips)
        count, channels, longest = batch.shape
        assert count * channels * longest * batch.clips[0].pcm.itemsize <= MEGABYTE or count == 1
        assert sum(c.frames for c in batch.clips) >= 0.84 * count * longest - count
        assert [c.index for c in batch.clips] == sorted(c.index for c in batch.clips)
    assert list(map(repr, batch_clips(iter(events), limits))) == list(map(repr, events_out))


def test_a_batch_comes_when_it_is_full_and_the_rest_at_the_end():
    events = [bare(1000, index=i) for i in range(10)]
    assert batch_indexes(batch_clips(events, config(batch_segments=4))) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_what_is_not_a_clip_to_score_passes_at_once():
    dropped = bare(0, reason="too_short")
    stream = batch_clips(iter([bare(1000), dropped, "end of a video", bare(1000)]), config())
    assert next(stream) is dropped
    assert next(stream) == "end of a video"
    assert len(next(stream).clips) == 2


def test_lengths_far_apart_never_share_a_batch():
    assert sorted(batch_indexes(batch_clips([bare(n, index=n) for n in (1000, 1300, 1010)], config()))) == [
        [1000, 1010],
        [1300],
    ]


def test_a_batch_is_capped_in_bytes_with_its_padding():
    events = [bare(MEGABYTE // 2 // 4, index=i) for i in range(9)]  # a quarter of a megabyte each
    assert batch_indexes(batch_clips(events, config(batch_mb=1))) == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_a_clip_above_the_cap_goes_alone():
    events = [bare(MEGABYTE, index=i) for i in range(3)]
    assert batch_indexes(batch_clips(events, config(batch_mb=1))) == [[0], [1], [2]]


def test_no_more_waits_than_the_limit_and_the_heaviest_goes_first():
    long, short = [bare(MEGABYTE // 4, index=i) for i in range(3)], [bare(1000, index=9)]
    events_out = batch_clips(iter([*short, *long]), config(batch_queue_mb=1, batch_mb=64))
    assert batch_indexes(events_out) == [[0, 1], [9], [2]]


def test_waiting_samples_never_exceed_the_limit():
    def watched():
        for i in range(200):
            pulled.append(i)
            yield bare(20_000 + 700 * (i % 40), index=i)

    pulled, out = [], 0
    for item in batch_clips(watched(), config(batch_queue_mb=1, batch_segments=50)):
        out += len(item.clips)
        waiting = len(pulled) - out
        assert waiting * 40_000 <= MEGABYTE


def test_collating_pads_with_zeros_after_each_clip():
    pair = Batch((clip(900, channels=2), clip(1000, channels=2, seed=1)))
    assert pair.shape == (2, 2, 1000)
    samples = np.full(pair.shape, 7, pair.clips[0].pcm.dtype)
    assert pair.collate(samples) == [900, 1000]
    assert (samples[0, :, 900:] == 0).all()
    assert (samples[0, :, :900] == pair.clips[0].pcm).all()
    assert (samples[1] == pair.clips[1].pcm).all()
