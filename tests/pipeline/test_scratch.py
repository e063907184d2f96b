import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from audiopipe.errors import BrokenWorker
from audiopipe.pipeline.scratch import PREFIX, scratch_folder

HOLDER = """
import sys, time
from audiopipe.pipeline.scratch import scratch_folder
with scratch_folder("holder", sys.argv[1]) as folder:
    (folder / "source").write_bytes(bytes(1000))
    print(folder, flush=True)
    time.sleep(60)
"""


def test_a_folder_is_removed_however_the_work_ends(tmp_path: Path) -> None:
    with scratch_folder("shard", str(tmp_path / "new")) as folder:
        (folder / "below").mkdir()
        assert folder.parent == tmp_path / "new"
    with pytest.raises(RuntimeError), scratch_folder("shard", str(tmp_path / "new")):
        raise RuntimeError
    assert list((tmp_path / "new").iterdir()) == []


def test_the_folder_of_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        held = Path(holder.stdout.readline().strip())  # type: ignore[union-attr]
        (tmp_path / f"{PREFIX}file").write_text("not a folder")
        with scratch_folder("second", str(tmp_path)) as second:
            assert (held / "source").exists()
            os.kill(holder.pid, signal.SIGKILL)
            holder.wait()
            with scratch_folder("third", str(tmp_path)):
                assert not held.exists()
                assert second.exists()
    assert [path.name for path in tmp_path.iterdir()] == [f"{PREFIX}file"]


def test_a_full_disk_is_named_with_what_to_do(tmp_path: Path) -> None:
    with (
        pytest.raises(BrokenWorker, match=f"scratch folder {tmp_path}: No space left"),
        scratch_folder("shard", str(tmp_path)),
    ):
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError, match="something else"), scratch_folder("shard", str(tmp_path)):
        raise OSError(5, "something else")
