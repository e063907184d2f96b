"""Decode the files of tests; check afterwards that no decoder process is left."""

from __future__ import annotations

import numpy as np
import pytest
from factories import config, list_decoders, source_of

from audiopipe.media import decode

OPUS, AAC = ("-c:a", "libopus", "-b:a", "96k"), ("-c:a", "aac", "-b:a", "128k")


def decode_file(path, **parameters):
    source = source_of(path)
    media = decode.probe(source, config(**parameters))
    return media, np.concatenate(list(decode.decode(source, media, config(**parameters))), axis=1)


@pytest.fixture(autouse=True)
def no_decoder_remains():
    yield
    assert list_decoders() == []
