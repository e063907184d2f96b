import os
import subprocess
import sys

import pytest

ROUNDS, MEGABYTE_PAGES = 200, 256
# Arrays of the size of a segment are allocated and freed in an environment as Dask starts its workers in.
PROGRAM = f"""
import resource, sys
import numpy as np
from audiopipe.pipeline.malloc import raise_malloc_thresholds
if sys.argv[1] == "keep":
    raise_malloc_thresholds()
np.ones(1 << 17)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    np.ones(1 << 17)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_an_array_reuses_freed_memory_in_a_dask_worker_too() -> None:
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}

    def faults(how: str) -> int:
        command = [sys.executable, "-c", PROGRAM, how]
        return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)

    assert faults("give back") > ROUNDS * MEGABYTE_PAGES / 2
    assert faults("keep") < ROUNDS
