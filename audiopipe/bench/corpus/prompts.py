"""Read recorded prompts: their names, the names as text, and their samples."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import soundfile

__all__ = ["Prompt", "Samples", "cut_recording", "read_prompts"]

Samples = npt.NDArray[np.float32]

SOURCE_RATE_HZ = 16_000
G722_BYTES_PER_S = 8_000
EDGE_MARGIN_S = 0.03
EDGE_DB = -45.0
NOT_SPEECH = re.compile(r"^(silence/|beep|tt-monkeys$|(de|a)scending-2tone$|confbridge-(join|leave)$)")


@dataclass(frozen=True)
class Prompt:
    """A prompt of one voice. `text` is its name in words, because these recordings have no transcript."""

    name: str
    text: str
    speaker: str
    path: Path
    length_s: float

    def pcm(self, rate_hz: int = SOURCE_RATE_HZ) -> Samples:
        """Decode the samples at `rate_hz`, without the silence before and after: `[T]`, float32 within [-1, 1]."""
        return _trim(_decode(self.path, rate_hz), rate_hz)


def read_prompts(folder: Path) -> list[Prompt]:
    """List the prompts of an unpacked package (`…/sounds/<place>_<voice>/<name>.g722`), sorted by name."""
    voices = [voice for voice in folder.glob("**/sounds/*") if voice.is_dir()]
    prompts = [_prompt(path, voice) for voice in voices for path in voice.rglob("*") if path.is_file()]
    return sorted((prompt for prompt in prompts if not NOT_SPEECH.match(prompt.name)), key=lambda prompt: prompt.name)


def _prompt(path: Path, voice: Path) -> Prompt:
    name = path.relative_to(voice).with_suffix("").as_posix()
    return Prompt(name, _to_text(name), voice.name.rpartition("_")[2].lower(), path, _length_s(path))


def _to_text(name: str) -> str:
    """Turn a name into words: `vm-enter-num-to-call` -> `enter num to call`, `digits/7` -> `digits 7`."""
    return re.sub(r"[-_/]+", " ", re.sub(r"^(vm|conf|confbridge|tt|pbx|priv|demo)-", "", name)).strip()


def _length_s(path: Path) -> float:
    return path.stat().st_size / G722_BYTES_PER_S if path.suffix == ".g722" else float(soundfile.info(path).duration)


def _decode(path: Path, rate_hz: int) -> Samples:
    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate_hz)
    with av.open(str(path), format=path.suffix[1:]) as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in [*frames, *resampler.resample(None)]])


def _trim(samples: Samples, rate_hz: int) -> Samples:
    loud = np.flatnonzero(np.abs(samples) > np.abs(samples).max(initial=0.0) * 10 ** (EDGE_DB / 20))
    if not loud.size:
        return samples
    margin = int(EDGE_MARGIN_S * rate_hz)
    return samples[max(0, loud[0] - margin) : loud[-1] + margin]


def cut_recording(path: Path, into: Path) -> None:
    """Cut a long recording at its pauses into `into/sounds/<name>_<name>/<name>-000.wav` and so on."""
    samples, rate_hz = soundfile.read(path, dtype="float32")
    folder = into / "sounds" / f"sdist_{path.stem}"
    folder.mkdir(parents=True)
    for index, (start, end) in enumerate(_spoken(samples, rate_hz)):
        soundfile.write(folder / f"{path.stem}-{index:03d}.wav", samples[start:end], rate_hz)
    path.unlink()


def _spoken(samples: Samples, rate_hz: int, min_s: float = 0.5, max_s: float = 15.0) -> list[tuple[int, int]]:
    """Find runs of 20 ms frames within 30 dB of the loud ones, joined over gaps shorter than 0.3 s."""
    hop = rate_hz // 50
    frames = samples[: len(samples) // hop * hop].reshape(-1, hop)
    level = np.sqrt(np.mean(frames**2, axis=1))
    loud = np.flatnonzero(level > np.percentile(level, 95) * 10 ** (-30 / 20))
    breaks = np.flatnonzero(np.diff(loud) > 15) + 1
    runs = [(int(run[0]) * hop, (int(run[-1]) + 1) * hop) for run in np.split(loud, breaks)]
    step = int(max_s * rate_hz)
    pieces = [(start, min(start + step, end)) for first, end in runs for start in range(first, end, step)]
    return [(start, end) for start, end in pieces if end - start >= min_s * rate_hz]
