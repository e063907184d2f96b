"""Make one small corpus per session, in two languages, with every format, condition and defect."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from corpus_files import Demo

from audiopipe.bench.corpus import make_corpus

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def demo_cache() -> Path:
    """Return the folder of downloaded packages, which all tests and `make demo` share."""
    return Path(os.environ.get("AUDIOPIPE_DEMO_CACHE", REPOSITORY / "demo" / "corpus" / "cache"))


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, demo_cache: Path) -> Demo:
    directory = tmp_path_factory.mktemp("demo") / "corpus"
    corpus = make_corpus(directory, videos=12, languages=("en", "it"), cache=demo_cache)
    return Demo(directory, corpus, json.loads(corpus.truth.read_text()))
