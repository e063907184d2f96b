import numpy as np
import pytest
from factories import tones

from audiopipe.media.channels import ChannelLevels

LEFT = tones(3.0, 16_000, 1)[0].astype(np.float32)
NOISE = np.random.default_rng(0).standard_normal((6, 48_000)).astype(np.float32)


def substitute(*channels):
    levels = ChannelLevels(len(channels))
    for block in np.array_split(np.stack(channels), [100, 20_000], axis=1):
        levels.add(block)
    return levels.find_substitute(), levels.is_quiet()


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        ([LEFT, -LEFT], (0, True)),
        ([0.9 * LEFT, -LEFT], (1, True)),
        ([LEFT + 0.2, 0.2 - LEFT], (0, True)),  # a constant offset is not sound
        ([LEFT, -LEFT, 0 * LEFT], (0, True)),
        ([LEFT, -0.7 * LEFT], (None, True)),  # the mean is 15 dB below the channels
        ([LEFT, 0 * LEFT], (None, False)),
        ([0 * LEFT, 0 * LEFT], (None, True)),
        (list(0.1 * NOISE), (None, False)),
    ],
)
def test_the_loudest_channel_replaces_a_mean_that_cancels(channels, expected):
    assert substitute(*channels) == expected


def test_a_damaged_sample_does_not_count():
    damaged = LEFT.copy()
    damaged[:3] = np.nan, np.inf, 1e30
    assert substitute(damaged, -LEFT) == (1, True)


def test_sixteen_bits_have_the_levels_of_float32():
    samples = (np.stack([LEFT, -0.95 * LEFT]) * 20_000).astype(np.int16)
    assert substitute(*samples) == substitute(*(samples / np.float32(32768))) == (0, True)
