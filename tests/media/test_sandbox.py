"""Decoder processes have no keys and no network, and decode all the same."""

from __future__ import annotations

import platform
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from factories import config, inject_decoder_code, media_file, source_of, tones
from output_factory import config as run_config
from output_factory import corpus, make_output

from audiopipe.dataset.commit import read_commits
from audiopipe.errors import UndecodableMedia
from audiopipe.media import decoder_process
from audiopipe.media.decode import decode, probe
from audiopipe.media.sandbox import SYSTEM_CALLS, _build_filter, decoder_environment

KEYS = {
    "AWS_SECRET_ACCESS_KEY": "canary-1",
    "AWS_SESSION_TOKEN": "canary-2",
    "SUPABASE_SERVICE_KEY": "canary-3",
    "AZURE_STORAGE_CONNECTION_STRING": "canary-4",
    "GITHUB_TOKEN": "canary-5",
    "DATABASE_URL": "postgres://user:canary-6@host/db",
    "PYTHON_KEYRING_PASSWORD": "canary-7",
}
has_filter = pytest.mark.skipif(platform.machine() not in SYSTEM_CALLS, reason="no filter for this machine")


@pytest.fixture
def source(tmp_path: Path):
    return source_of(media_file(tmp_path / "tone.wav", tones(1.0, 16_000, 1), 16_000))


@pytest.fixture
def fresh_server(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let the test start a fork server with its own environment."""
    server = decoder_process.ForkServer()
    monkeypatch.setattr(decoder_process, "_FORK_SERVER", server)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    yield monkeypatch
    server.close()


def run_in_decoder(source, tmp_path: Path, patch: pytest.MonkeyPatch, code: str) -> str:
    """Run code in a decoder, and return its last words: the message of the failure."""
    for name, value in inject_decoder_code(tmp_path / "code", f"{code}\nos._exit(1)").items():
        patch.setenv(name, value)
    with pytest.raises(UndecodableMedia) as caught:
        probe(source, config())
    return str(caught.value)


def test_a_decoder_has_no_key_in_its_environment(source, tmp_path: Path, fresh_server: pytest.MonkeyPatch) -> None:
    code = (
        "os.write(stderr, ' '.join(f'{k}={v}' for k, v in os.environ.items() if 'canary' in v or k == 'PATH').encode())"
    )
    message = run_in_decoder(source, tmp_path, fresh_server, code)
    assert "PATH=" in message
    assert "canary" not in message


@has_filter
@pytest.mark.parametrize(
    "action",
    [
        "__import__('socket').socket()",
        "__import__('socket').socketpair()",
        "__import__('socket').socket(__import__('socket').AF_UNIX)",
        "os.execv('/bin/true', ['true'])",
    ],
    ids=["socket", "pair", "unix", "program"],
)
def test_a_decoder_opens_no_connection_and_starts_no_program(
    source, tmp_path: Path, fresh_server: pytest.MonkeyPatch, action: str
) -> None:
    report = "os.write(stderr, f'denied {error.errno}'.encode())"
    code = f"try:\n    {action}\nexcept PermissionError as error:\n    {report}"
    assert "denied 1" in run_in_decoder(source, tmp_path, fresh_server, code)
    assert decoder_process.decoders_have_network() is False


def test_a_decoder_decodes_where_filters_are_not_allowed(source, fresh_server: pytest.MonkeyPatch) -> None:
    fresh_server.setenv("PYTHONPATH", without_filter(source.path.parent))
    assert sum(block.shape[-1] for block in decode(source, probe(source, config()), config())) == 16_000
    assert decoder_process.decoders_have_network() is True


def without_filter(folder: Path) -> str:
    """Return a PYTHONPATH with which the machine is one that the sandbox does not know."""
    code = inject_decoder_code(folder / "code", "pass")
    with (folder / "code" / "sitecustomize.py").open("a") as file:
        file.write("\nimport platform\nplatform.machine = lambda: 'riscv64'\n")
    return code["PYTHONPATH"]


@has_filter
def test_a_commit_records_whether_decoders_had_network(tmp_path: Path) -> None:
    store = make_output(run_config(corpus(tmp_path / "c", videos=1, missing=False), tmp_path / "out"))
    assert {commit.result.decoder_network for commit in read_commits(store).values()} == {False}


def test_only_listed_variables_reach_a_decoder() -> None:
    given = {**KEYS, "PATH": "/bin", "PYTHONPATH": "/x", "LC_ALL": "C", "http_proxy": "http://user:canary@host"}
    assert decoder_environment(given) == {"PATH": "/bin", "PYTHONPATH": "/x", "LC_ALL": "C"}


@pytest.mark.parametrize("machine", SYSTEM_CALLS)
def test_the_filter_denies_its_calls_and_allows_others(machine: str) -> None:
    """Interpret the filter as the kernel does."""
    identifier, _, denied = SYSTEM_CALLS[machine]
    lines = list(struct.iter_unpack("=HBBI", _build_filter(identifier, denied)))

    def answer(number: int, called_from: int = identifier) -> int:
        position, value = 0, 0
        while True:
            code, if_true, if_false, operand = lines[position]
            if code == 0x20:
                value = number if operand == 0 else called_from
            elif code == 0x06:
                return operand
            else:
                holds = value == operand if code == 0x15 else value >= operand
                position += if_true if holds else if_false
            position += 1

    assert {answer(number) for number in denied} == {0x00050001}
    assert {answer(number) for number in range(500) if number not in denied} == {0x7FFF0000}
    assert answer(0x40000000 + 41) == 0x00050001
    assert answer(0, called_from=0x40000003) == 0x80000000


@has_filter
def test_the_filter_costs_no_measurable_time() -> None:
    code = "import time, audiopipe.media.sandbox as sandbox\nstart = time.perf_counter()\n"
    code += "assert sandbox.deny_network()\nprint(time.perf_counter() - start)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.05
