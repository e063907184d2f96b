import gzip
import json
import sys
import types
import uuid

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from audiopipe.catalog import read as read_module
from audiopipe.catalog.read import CATALOG_SCHEMA, read_catalog
from audiopipe.catalog.validate import REQUIRED_COLUMNS
from audiopipe.config import RunConfig
from audiopipe.errors import CatalogError, MissingExtra

ROWS = {
    "youtube_id": ["b", "a", "12", "c", "d"],
    "language": ["en", "en", "de", "pt-BR", "de"],
    "status": ["COMPLETED", "COMPLETED", "COMPLETED", "PENDING", None],
    "r2_tar_key": ["en/b.tar", "en/a.tar", "de/12.tar", None, ""],
    "size_bytes": [2, None, 3, None, 5],
    "duration_s": [2.5, None, 30.0, None, -5.0],
}


def read(url, **parameters):
    return read_catalog(RunConfig.of(catalog=str(url), output="o", **parameters))


def rows_by_id(catalog):
    return {row["video_id"]: row for language in catalog.languages() for row in catalog.videos(language).to_pylist()}


def write_table(path, rows=ROWS, open_file=open):
    """Write a table in the format of the suffix."""
    table, name = pa.table(rows), str(path)
    if name.endswith(".parquet"):
        pq.write_table(table, path)
    elif ".csv" in name:
        with open_file(path, "wb") as file:
            pyarrow.csv.write_csv(table, file)
    else:
        with open_file(path, "wb") as file:
            file.write(b"".join(json.dumps(row).encode() + b"\n" for row in table.to_pylist()))
    return path


@pytest.mark.parametrize("name", ["c.parquet", "c.csv", "c.jsonl", "c.NDJSON"])
def test_completed_rows_are_the_same_in_every_format(tmp_path, name):
    catalog = read(write_table(tmp_path / name))
    assert catalog.languages() == ["de", "en"]
    assert catalog.videos("en").schema == CATALOG_SCHEMA
    rows = rows_by_id(catalog)
    assert all(row.pop("sidecars") is None for row in rows.values())
    assert rows == {
        "b": {"video_id": "b", "language": "en", "uri": f"{tmp_path}/en/b.tar", "size_bytes": 2, "duration_s": 2.5},
        "a": {"video_id": "a", "language": "en", "uri": f"{tmp_path}/en/a.tar", "size_bytes": None, "duration_s": None},
        "12": {"video_id": "12", "language": "de", "uri": f"{tmp_path}/de/12.tar", "size_bytes": 3, "duration_s": 30.0},
    }


@pytest.mark.parametrize("name", ["c.csv.gz", "c.jsonl.gz"])
def test_a_compressed_table_is_read(tmp_path, name):
    assert read(write_table(tmp_path / name, open_file=gzip.open)).languages() == ["de", "en"]


@pytest.fixture
def memory():
    """Make a folder on fsspec's memory file system: a remote store without a network."""
    root = f"/{uuid.uuid4().hex}"
    fs = fsspec.filesystem("memory")
    yield fs, root
    fs.rm(root, recursive=True)


def test_paths_are_relative_to_a_remote_table_and_sizes_are_listed(memory, tmp_path):
    fs, root = memory
    rows = {name: ROWS[name] for name in ("youtube_id", "language", "status", "r2_tar_key")}
    fs.put_file(str(write_table(tmp_path / "c.parquet", rows)), f"{root}/c.parquet")
    fs.pipe_file(f"{root}/en/b.tar", b"12345")
    rows = rows_by_id(read(f"memory:/{root}/c.parquet"))
    assert rows["b"]["uri"] == f"memory:/{root}/en/b.tar"
    assert (rows["b"]["size_bytes"], rows["a"]["size_bytes"]) == (5, None)


@pytest.mark.parametrize("prefix", ["s3://bucket/videos", "s3://bucket/videos/"])
def test_source_prefix_is_the_folder_that_keys_are_in(tmp_path, monkeypatch, prefix):
    monkeypatch.setattr(read_module, "list_sizes", lambda uris: [None] * len(uris))
    rows = rows_by_id(read(write_table(tmp_path / "c.parquet"), source_prefix=prefix))
    assert rows["a"]["uri"] == "s3://bucket/videos/en/a.tar"


def test_a_relative_local_prefix_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "c.parquet")
    assert rows_by_id(read("c.parquet"))["a"]["uri"] == f"{tmp_path}/en/a.tar"
    assert rows_by_id(read("c.parquet", source_prefix="tars"))["a"]["uri"] == f"{tmp_path}/tars/en/a.tar"


def single_row(key="a.tar", **columns):
    return {"youtube_id": ["x"], "language": ["en"], "r2_tar_key": [key], "size_bytes": [1], **columns}


@pytest.mark.parametrize("key", ["/data/x.tar", "s3://bucket/x.tar", "https://host/x.webm"])
def test_an_absolute_key_is_refused_with_a_prefix(tmp_path, key):
    path = write_table(tmp_path / "c.parquet", single_row(key))
    assert rows_by_id(read(path))["x"]["uri"] == key
    with pytest.raises(CatalogError, match="source_prefix"):
        read(path, source_prefix="s3://other")


@pytest.mark.parametrize("key", ["/etc/passwd", "file:///etc/passwd", "FILE:///etc/passwd", "local://etc"])
def test_a_remote_catalog_names_no_local_file(memory, tmp_path, key):
    fs, root = memory
    fs.put_file(str(write_table(tmp_path / "c.jsonl", single_row(key))), f"{root}/c.jsonl")
    with pytest.raises(CatalogError, match="local file"):
        read(f"memory:/{root}/c.jsonl")


@pytest.mark.parametrize(
    "key",
    [
        "a/..",
        "..",
        "../\0.tar",
        "s3://b/../x.tar",
        "a\0.tar",
        "",
        None,
        "x::file:///etc/passwd",
        "s3://KEY:se/cret@b/x",
    ],
)
def test_a_key_of_no_file_is_refused_by_row(tmp_path, key):
    path = write_table(tmp_path / "c.parquet", {**single_row(), "r2_tar_key": pa.array([key], pa.string())})
    with pytest.raises(CatalogError, match=r"c\.parquet, row 1 \(id 'x'\), column 'r2_tar_key'") as caught:
        read(path)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("key", ["../x.tar", "a/../../x.tar", "{}/a/../x.tar"])
def test_paths_of_a_local_catalog_may_go_up(tmp_path, key):
    (tmp_path / "tables").mkdir()
    path = write_table(tmp_path / "tables/c.parquet", single_row(key.format(tmp_path)))
    assert rows_by_id(read(path))["x"]["uri"] == f"{tmp_path}/x.tar"


def test_keys_of_another_place_do_not_leave_their_folder(tmp_path, memory):
    path = write_table(tmp_path / "c.parquet", single_row("../x.tar"))
    with pytest.raises(CatalogError, match=r"leaves its folder by '\.\.'"):
        read(path, source_prefix="s3://b/a")
    fs, root = memory
    fs.put_file(str(path), f"{root}/c.parquet")
    with pytest.raises(CatalogError, match=r"leaves its folder by '\.\.'"):
        read(f"memory:/{root}/c.parquet")


@pytest.mark.parametrize("key", ["a..b.tar", "..a/x.tar", "a/b../x.tar", "ä/日本 x%2e.tar"])
def test_an_unusual_but_safe_key_is_accepted(tmp_path, key):
    assert rows_by_id(read(write_table(tmp_path / "c.parquet", single_row(key))))["x"]["uri"] == f"{tmp_path}/{key}"


INVALID = {
    "no column": ({"youtube_id": ["x"], "lang": ["en"]}, "lacks the columns language, r2_tar_key; it has youtube_id"),
    "id null": (
        {**single_row(), "youtube_id": pa.array([None], pa.string())},
        "row 1, column 'youtube_id': None is empty",
    ),
    "id empty": (single_row(youtube_id=[""]), "row 1, column 'youtube_id': '' is empty"),
    "language null": (single_row(language=pa.array([None], pa.string())), "row 1 .id 'x'., column 'language': None"),
    "language odd": (single_row(language=["../en"]), "'../en' is not a valid language"),
    "language all": (single_row(language=["all"]), "'all' is not a valid language"),
    "nothing done": (single_row(status=["PENDING"]), "no row has status 'COMPLETED', but PENDING"),
    "no rows": ({name: pa.array([], pa.string()) for name in single_row()}, "has no rows"),
    "size negative": (single_row(size_bytes=[-1]), "column 'size_bytes': -1 is impossible"),
    "size broken": (single_row(size_bytes=[1.5]), "column 'size_bytes': 1.5 is impossible"),
    "size not a number": (
        single_row(size_bytes=["1 MB"]),
        "row 1 .id 'x'., column 'size_bytes': '1 MB' is not a number",
    ),
    "duration infinite": (single_row(duration_s=[float("inf")]), "column 'duration_s': inf is impossible"),
    "duration a list": (single_row(duration_s=[[1]]), "column 'duration_s': list<.*> is not a number"),
    "id a list": (single_row(youtube_id=[["x"]]), "column 'youtube_id': list<.*> is not UTF-8 text"),
}


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_row_is_named(tmp_path, name):
    rows, message = INVALID[name]
    with pytest.raises(CatalogError, match=message):
        read(write_table(tmp_path / "c.parquet", rows))


def test_duplicate_ids_are_named_and_only_among_completed_rows(tmp_path):
    ids = ["a", "b", "b", "c", "c", "c", "d", "d"]
    rows = {"youtube_id": ids, "language": ["en"] * 8, "r2_tar_key": [f"{i}.tar" for i in range(8)]}
    with pytest.raises(CatalogError, match=r"3 ids appear more than once: 'b', 'c', 'd' \(first in row 2\)"):
        read(write_table(tmp_path / "c.parquet", rows))
    rows["status"] = ["COMPLETED" if i in (0, 1, 3, 6) else "FAILED" for i in range(8)]
    assert sorted(rows_by_id(read(write_table(tmp_path / "c.parquet", rows)))) == ["a", "b", "c", "d"]


def test_row_numbers_count_the_rows_that_are_left_out(tmp_path):
    rows = {**ROWS, "r2_tar_key": ["en/b.tar", "en/a.tar", "..", None, ""]}
    with pytest.raises(CatalogError, match=r"row 3 \(id '12'\)"):
        read(write_table(tmp_path / "c.csv", rows))


@pytest.mark.parametrize("name", ["c.parquet", "c.csv", "c.jsonl", "c.jsonl.gz"])
@pytest.mark.parametrize("data", [b"\xff\xfe garbage \x00", b"{", b'["not an object"]', None])
def test_an_unreadable_table_is_named(tmp_path, name, data):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(CatalogError, match=f"{tmp_path}/{name}"):
        read(tmp_path / name)


def test_an_unsupported_url_is_refused_by_name():
    with pytest.raises(CatalogError, match="nonsense://x"):
        read("nonsense://x/c.parquet")
    with pytest.raises(CatalogError, match="nonsense://x"):
        read("nonsense://x/folder")


def test_an_invalid_jsonl_row_is_named_by_its_line(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"youtube_id": "a"}\n\n{"youtube_id": ["a"]}\n')
    with pytest.raises(CatalogError, match="line 3, column 'youtube_id'"):
        read(tmp_path / "c.jsonl")


def test_numbers_in_text_and_missing_numbers_are_read(tmp_path):
    head = "youtube_id,language,r2_tar_key,size_bytes,duration_s\n"
    (tmp_path / "c.csv").write_text(head + "2024-01-01,en,a, 12 ,1e1\n007,en,b,NaN,\n-x,en,c,3.0,.5\n")
    rows = rows_by_id(read(tmp_path / "c.csv"))
    assert {video_id: (row["size_bytes"], row["duration_s"]) for video_id, row in rows.items()} == {
        "2024-01-01": (12, 10.0),
        "007": (None, None),
        "-x": (3, 0.5),
    }


@pytest.mark.parametrize("ids", [["007", "7"], ["2024-01-01", "2024-01-02"], ["true", "false"], ["1e5", "nan"]])
@pytest.mark.parametrize("name", ["c.csv", "c.jsonl", "c.parquet"])
def test_an_id_that_looks_like_a_number_or_date_is_text(tmp_path, name, ids):
    rows = {"youtube_id": ids, "language": ["en", "en"], "r2_tar_key": ["a", "b"]}
    assert list(rows_by_id(read(write_table(tmp_path / name, rows)))) == ids


def test_dictionary_and_integer_columns_are_read_as_text(tmp_path):
    rows = single_row(youtube_id=[7], language=pa.array(["en"]).dictionary_encode(), duration_s=[3])
    assert rows_by_id(read(write_table(tmp_path / "c.parquet", rows)))["7"]["duration_s"] == 3.0


def test_an_unknown_language_is_refused_with_the_available_ones(tmp_path):
    path = write_table(tmp_path / "c.parquet")
    assert read(path, language="de").languages() == ["de"]
    assert read(path, language="de,en").languages() == ["de", "en"]
    with pytest.raises(
        CatalogError, match=r"no video in language 'EN' \(did you mean 'en'\?\); its languages are de, en"
    ):
        read(path, language="EN")
    with pytest.raises(CatalogError, match="its languages are de, en"):
        read(path, language="pt-BR")


def test_a_database_is_a_module_that_reads_pages(monkeypatch):
    calls = []

    def read_pages(table, language):
        calls.append((table, language))
        rows = pa.table(
            single_row("https://h/x.tar") if language in (None, "en") else {name: [] for name in REQUIRED_COLUMNS}
        )
        return iter([rows, pa.table({name: pa.array([], pa.null()) for name in REQUIRED_COLUMNS})])

    module = types.ModuleType("fake_backend")
    module.read_pages = read_pages
    monkeypatch.setitem(sys.modules, "fake_backend", module)
    monkeypatch.setitem(read_module.BACKENDS, "supabase", "fake_backend")
    assert rows_by_id(read("supabase://videos", language="en"))["x"]["uri"] == "https://h/x.tar"
    assert calls == [("videos", "en")]
    with pytest.raises(CatalogError, match="no video in language 'fr'; its languages are en"):
        read("supabase://videos", language="fr")
    with pytest.raises(CatalogError, match="source_prefix"):
        read("supabase://videos", source_prefix="s3://b")


def test_a_missing_database_package_names_its_extra(monkeypatch):
    for module in ("audiopipe.catalog.supabase", "audiopipe.ledger.supabase_client"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "supabase", None)
    with pytest.raises(MissingExtra, match=r"pip install 'audiopipe\[supabase\]'"):
        read("supabase://videos")


@pytest.mark.bulk
def test_half_a_million_rows_are_read_in_seconds_and_little_memory(tmp_path):
    count = 500_000
    ids = [f"{i:011x}" for i in range(count)]
    rows = {
        "youtube_id": ids,
        "language": [f"l{i % 12}" for i in range(count)],
        "status": ["COMPLETED"] * count,
        "r2_tar_key": [f"l{i % 12}/{name}.tar" for i, name in enumerate(ids)],
        "size_bytes": range(count),
        "duration_s": [60.0] * count,
    }
    catalog = read(write_table(tmp_path / "c.parquet", rows))
    assert catalog.table.num_rows == count
    assert catalog.table.nbytes < 100 * 2**20
    assert catalog.videos("l3").num_rows == 41_667
