"""`audiopipe inspect` shows what a run would take of anything, and the command to run next."""

import io
import json
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from click.testing import CliRunner

from audiopipe import cli
from audiopipe.catalog.read import read_catalog
from audiopipe.config import RunConfig
from audiopipe.dataset.run_record import open_run
from audiopipe.store.objects import Store

HEADER = "client_id\tpath\tsentence\tlocale\tage\n"


def inspect(*arguments):
    done = CliRunner().invoke(cli.main, ["inspect", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, done.output


def next_command(output):
    """Return the parameters of the command in the last line."""
    words = shlex.split(output.splitlines()[-1].strip().removeprefix("next"))
    assert words[:2] == ["audiopipe", "run"]
    return dict(zip([word[2:].replace("-", "_") for word in words[2::2]], words[3::2], strict=True))


@pytest.fixture
def clips(tmp_path):
    (tmp_path / "clips").mkdir()
    for name in ("a", "b"):
        sf.write(tmp_path / "clips" / f"{name}.wav", np.zeros(8_000), 16_000)
    (tmp_path / "train.tsv").write_text(f"{HEADER}x\ta.wav\tHello\ten\t20\nx\tb.wav\t\ten\t\n")
    return tmp_path


def test_a_table_is_shown_with_the_command_that_reads_it(clips):
    code, output = inspect(clips / "train.tsv")
    assert code == 0
    assert "Common Voice (TSV table)" in output
    assert "languages   en 2" in output
    assert "1 that are whole files, 1 with text and 1 with speaker; of 1 files at the times of JSON" in output
    assert "not used    age (--keep-columns adds them" in output
    assert '"Hello"  (x)' in output
    catalog = read_catalog(RunConfig.of(**next_command(output)))
    assert catalog.table.num_rows == 2


def test_columns_are_guessed_and_the_guess_is_in_the_command(clips):
    (clips / "list.csv").write_text("ID;Audio File;Transcript\n1;clips/a.wav;hi\n2;clips/c.wav;ho\n")
    code, output = inspect(clips / "list.csv")
    assert code == 0
    assert "its columns are guessed by their names" in output
    assert "1 of the first 2 files do not exist" in output
    parameters = next_command(output)
    assert parameters["columns"] == "youtube_id=ID,r2_tar_key=Audio File,text=Transcript"
    assert "the language of 2 files is unknown (und)" in output
    assert read_catalog(RunConfig.of(**parameters)).table.num_rows == 2
    as_json = json.loads(inspect(clips / "list.csv", "--language-from", "de", "--json")[1])
    assert as_json["parameters"]["language_from"] == "de"
    assert as_json["commands"][-1].startswith("audiopipe run --catalog")


def test_a_text_of_a_long_file_is_a_problem(clips):
    (clips / "m.json").write_text('{"audio_filepath": "clips/a.wav", "duration": 900, "text": "an episode"}\n')
    output = inspect(clips / "m.json", "--language-from", "en")[1]
    assert "1 files with a text are longer than max_segment_s (30) and will be dropped" in output
    assert "longer" not in inspect(clips / "m.json", "--columns", "text=none")[1]


def test_a_table_without_a_likely_column_lists_what_it_has(tmp_path):
    (tmp_path / "c.csv").write_text("this,that\n1,2\n")
    code, output = inspect(tmp_path / "c.csv")
    assert code == 2
    assert "columns     this, that" in output
    assert "name the columns to use with --columns" in output
    assert inspect(tmp_path / "none")[0] == 2


def test_a_problem_in_a_file_of_a_folder_names_the_file(tmp_path):
    (tmp_path / "wav.scp").write_text("r1 sox /x.wav -t wav - |\n")
    code, output = inspect(tmp_path)
    assert code == 2
    assert f"problem     {tmp_path}/wav.scp, line 1 (r1): the command" in output


def test_a_folder_shows_hours_and_the_tables_that_it_does_not_use(clips):
    code, output = inspect(clips)
    assert code == 0
    assert "folder of files" in output
    assert "hours       about 0.00" in output
    assert f"audiopipe inspect {clips}/train.tsv" in output


def test_what_is_no_catalog_is_named(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name in ("a.flac", "a.json", "b.flac", "b.json"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    for path in (tmp_path, tmp_path / "s.tar"):
        code, output = inspect(path)
        assert (code, "tars of many samples (WebDataset)" in output) == (0, True)
        assert "tar -xf" in output
    rows = pa.table({"audio": [{"bytes": b"x", "path": "a"}], "text": ["hi"]})
    pq.write_table(rows, tmp_path / "p.parquet")
    code, output = inspect(tmp_path / "p.parquet")
    assert (code, "Parquet files with audio in their rows" in output) == (2, True)


def test_an_output_is_shown_with_its_next_commands(tmp_path):
    open_run(Store(str(tmp_path / "out")), RunConfig.of(catalog="c.csv", output=str(tmp_path / "out")))
    code, output = inspect(tmp_path / "out")
    assert code == 0
    assert "output of audiopipe" in output
    assert "it is not finished" in output
    assert f"audiopipe resume {tmp_path}/out" in output


def test_inspecting_imports_neither_pytorch_nor_dask(clips):
    code = (
        "import sys; from audiopipe import cli\n"
        "try: cli.main(['inspect', sys.argv[1]])\n"
        "except SystemExit: print([name for name in ('torch', 'dask', 'duckdb', 'numba') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(clips)], check=True, capture_output=True, text=True, cwd=Path(__file__).parent
    )
    assert done.stdout.splitlines()[-1] == "[]"
