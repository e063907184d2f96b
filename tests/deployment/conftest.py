import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def data() -> Iterator[Path]:
    """A folder of one name here and in a machine or container, as provenance has it; not in /tmp: each has its own."""
    folder = Path(tempfile.mkdtemp(prefix="audiopipe-", dir="/srv"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)
