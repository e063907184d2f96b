"""Run a part of the GPU check on the fake GPU: `python tests/rehearse_gpu_part.py NAME AUDIO OUT`.

Every part runs to its end on a machine without a GPU. The times are those of the fake device.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from fake_gpu import DEVICE, fake_gpu, with_fake_gpu

from audiopipe.bench import gpu, gpu_parts, pipeline, results, scorers
from audiopipe.pipeline import shard
from audiopipe.pipeline.prefetch import Prefetcher


def main(name: str, audio: Path, out: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # Small work: the fake device is slow.
        patch.setattr(gpu, "_SECONDS", 1)
        patch.setattr(gpu, "_BATCH", 2)
        patch.setattr(gpu, "_COPY_BYTES", 1 << 16)
        patch.setattr(gpu_parts, "OOM_CLIPS", 4)
        patch.setattr(gpu_parts, "MINUTES_PER_CORE", 0.1)
        patch.setattr(gpu_parts, "ROUNDS", 1)
        patch.setattr(gpu_parts, "SCORER_SECONDS", (0.57,))
        patch.setattr(scorers, "GPU_BATCH", 2)
        if name in ("machine", "pipeline"):
            patch.setattr(pipeline, "METHODS", (results.FLOOR, results.AUDIOPIPE))
            patch.setattr(gpu_parts, "DEVICE", torch.device("cpu"))
            gpu_parts.run_part(name, audio, out)
            return
        patch.setattr(gpu_parts, "DEVICE", DEVICE)
        patch.setattr(torch.cuda, "empty_cache", lambda: None)
        patch.setattr(torch.cuda, "memory_allocated", lambda: 0)
        patch.setattr(torch.cuda, "mem_get_info", lambda: (1 << 30, 1 << 30))
        patch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda fraction: None)
        patch.setattr(gpu_parts, "measure_gpu", partial(gpu.measure_gpu, quick=True))
        with fake_gpu(patch) as counts:
            resolve = shard.resolve_device
            patch.setattr(
                shard, "resolve_device", lambda config: DEVICE if "cpu" not in config.output else resolve(config)
            )
            patch.setattr(Prefetcher, "_produce", with_fake_gpu(Prefetcher._produce, counts))
            gpu_parts.run_part(name, audio, out)
        assert counts["operations"] > 0


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
