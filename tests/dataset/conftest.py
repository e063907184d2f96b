from __future__ import annotations

import pytest
from selection_factory import make_samples


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("parent") / "out"
    make_samples(str(folder))
    return str(folder)
