import gzip
import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertloom import storage
from pipeline.inputs import documents
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats import streamed
from pipeline.inputs.formats.plain_text import BLANK_LINES
from pipeline.inputs.sources import Split
from pipeline.inputs.splitting import split_size, split_source

TEXT = st.lists(
    st.sampled_from(["a", "b.", "中文。", "é", " ", "\t", "\u3000", "\u00a0", "\n", "\r\n", "\r", "\n\n", "\n \n"]),
    max_size=40,
).map("".join)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("inputs")


def source_of(folder: Path, name: str, data: bytes):
    (folder / name).write_bytes(data)
    [source] = find_sources([str(folder / name)])
    return source


def read_all(splits):
    return [item for split in splits for item in read_documents(split)]


# ---- cutting


@settings(max_examples=300)
@given(TEXT, st.booleans(), st.integers(1, 30), st.sampled_from([1, 2, 3, 7, 1 << 20]))
def test_a_text_file_cut_at_any_size_gives_the_same_documents(folder, text, bom, split_bytes, chunk):
    source = source_of(folder, "cut.txt", b"\xef\xbb\xbf" * bom + text.encode())
    whole = read_all([Split(source, 0, None)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streamed, "BORDER_BYTES", chunk)
        splits = split_source(source, split_bytes)
    assert read_all(splits) == whole


def test_a_file_that_needs_too_much_memory_is_named(folder, monkeypatch):
    def take_all(*_):
        yield bytearray(1 << 60)

    source = source_of(folder, "huge.txt", b"a")
    monkeypatch.setattr(documents, "clean", take_all)
    with pytest.raises(MemoryError, match=r"huge\.txt needs more than there is$"):
        read_all([Split(source, 0, None)])


def test_a_file_of_blank_lines_is_searched_once_and_cut_everywhere(tmp_path, monkeypatch):
    searched: list[int] = []

    class Counted:
        def search(self, data):
            searched.append(len(data))
            return BLANK_LINES.search(data)

    monkeypatch.setattr(streamed, "BORDER_BYTES", 1000)
    source = source_of(tmp_path, "blank.txt", b"a\n" + b"\n" * 200_000 + b"b\n")
    cuts = streamed.find_borders(Counted(), source, 20_000)
    assert cuts == [21_000, 42_000, 63_000, 84_000, 105_000, 126_000, 147_000, 168_000, 189_000]
    assert searched == [1000] * 9
    ends = [*cuts[1:], None]
    assert [item.text for item in read_all([Split(source, 0, cuts[0]), *map(Split, [source] * 9, cuts, ends)])] == [
        b"a",
        b"b",
    ]


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(['{"text": "a b"}', '{"text": "中\\n\\n文"}', "", "[1]", '{"text":', "\r"]), max_size=12),
    st.booleans(),
    st.integers(1, 40),
    st.sampled_from([1, 5, 1 << 20]),
)
def test_a_json_lines_file_cut_at_any_size_gives_the_same_records(folder, lines, final, split_bytes, chunk):
    source = source_of(folder, "cut.jsonl", ("\n".join(lines) + "\n" * final).encode())
    whole = read_all([Split(source, 0, None)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streamed, "BORDER_BYTES", chunk)
        splits = split_source(source, split_bytes)
    assert read_all(splits) == whole


@given(TEXT, st.integers(1, 30))
def test_splits_cover_the_file_end_to_end(folder, text, split_bytes):
    source = source_of(folder, "cover.txt", text.encode())
    splits = split_source(source, split_bytes)
    assert splits[0].start == 0 and splits[-1].end is None
    assert [split.end for split in splits[:-1]] == [split.start for split in splits[1:]]
    assert all(b - a >= split_bytes for a, b in zip([s.start for s in splits], [s.start for s in splits[1:]]))


def test_a_cut_is_at_the_first_border_after_the_wanted_size(folder):
    source = source_of(folder, "few.txt", b"one\n\ntwo\n\nthree\n\nfour\n")
    assert [(s.start, s.end) for s in split_source(source, 5)] == [(0, 10), (10, 17), (17, None)]


def test_a_run_of_blank_lines_longer_than_the_search_window_is_one_border(folder):
    data = b"one\n" + b" " * 9000 + b"\n" + b"\n" * 9000 + b"two\n"
    source = source_of(folder, "blank.txt", data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streamed, "BORDER_BYTES", 100)
        splits = split_source(source, 4)
    assert [(d.text, d.position) for d in read_all(splits)] == [(b"one", 0), (b"two", len(data) - 4)]


def test_a_file_without_a_border_is_one_split(folder):
    assert len(split_source(source_of(folder, "long.txt", b"word\n" * 1000), 10)) == 1


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".zst", ".xz"])
def test_a_compressed_file_is_one_split(folder, ending):
    source = source_of(folder, f"a.txt{ending}", b"x" * 100)
    assert split_source(source, 10) == [Split(source, 0, None, 100)]


def test_a_large_input_gets_larger_splits():
    assert split_size(57_000_000) == 8_000_000
    assert split_size(99_999_999_999) == 8_000_000
    assert split_size(100_000_000_000) == 64_000_000


# ---- finding


@pytest.mark.parametrize("pattern", ["*.txt", "nowhere/**", "."])
def test_a_pattern_that_matches_nothing_is_named(tmp_path, pattern):
    said = r"--input .*: no file matches. Expected a name that ends in \.txt, \.jsonl"
    with pytest.raises(ValueError, match=said) as error:
        find_sources([str(tmp_path / pattern)])
    assert str(tmp_path / pattern) in str(error.value)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(ValueError, match=r"--input .*missing\.txt: there is no such file or folder"):
        find_sources([str(tmp_path / "missing.txt")])


def test_sources_are_sorted_by_name_whatever_the_order_of_the_patterns(tmp_path):
    for name in ("b.txt", "a.jsonl", "c.txt.gz"):
        (tmp_path / name).write_bytes(b"x")
    patterns = [str(tmp_path / name) for name in ("c.txt.gz", "b.txt", "a.jsonl")]
    assert [s.name for s in find_sources(patterns)] == ["a.jsonl", "b.txt", "c.txt.gz"]
    assert find_sources(patterns) == find_sources(patterns[::-1])


def test_a_file_named_twice_is_read_once(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x")
    assert len(find_sources([str(tmp_path / "a.txt"), str(tmp_path / "*.txt")])) == 1


def test_a_folder_means_all_readable_files_below_it_and_the_others_are_reported(tmp_path):
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    for name in ("a.txt", "sub/b.jsonl.gz", "sub/deep/c.txt.zst", "notes.doc", ".hidden.txt", "README", "sub/x.wat.gz"):
        (tmp_path / name).write_bytes(b"x")
    notes: list[str] = []
    assert [s.name for s in find_sources([str(tmp_path)], notes)] == ["a.txt", "sub/b.jsonl.gz", "sub/deep/c.txt.zst"]
    [note] = notes
    assert note.startswith(f"{tmp_path}: 3 of 6 files skipped (1 .doc, 1 .wat.gz, 1 README). Expected a name")


def test_only_the_data_files_of_a_folder_saved_by_datasets_are_read(tmp_path):
    (tmp_path / "train").mkdir()
    for name in ("data-00000-of-00001.arrow", "cache-0123.arrow"):
        with pa.ipc.new_stream(tmp_path / "train" / name, pa.schema({"text": pa.string()})):
            pass
    state = tmp_path / "train/state.json"
    state.write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
    notes: list[str] = []
    assert [s.name for s in find_sources([str(tmp_path)], notes)] == ["train/data-00000-of-00001.arrow"]
    assert "2 of 3 files skipped (1 .arrow, 1 .json)" in notes[0]


@pytest.mark.parametrize("state", ["{}", "[1]", "not JSON", '{"_data_files": 1}', '{"_data_files": [{}]}', "\xff"])
def test_a_state_json_of_another_program_is_skipped(tmp_path, state):
    (tmp_path / "a.txt").write_bytes(b"x")
    (tmp_path / "state.json").write_bytes(state.encode("latin-1"))
    notes: list[str] = []
    assert [s.name for s in find_sources([str(tmp_path)], notes)] == ["a.txt"]
    assert "1 of 2 files skipped (1 .json)" in notes[0]


def test_a_list_stands_for_the_patterns_in_it(tmp_path):
    for name in ("a.txt", "b.txt", "c 1.txt"):
        (tmp_path / name).write_bytes(b"x")
    listed = tmp_path / "files.lst"
    listed.write_bytes(f"\ufeff{tmp_path}/a*.txt\r\n\n{tmp_path}/c 1.txt\n".encode())
    assert [s.name for s in find_sources([f"@{listed}"])] == ["a.txt", "c 1.txt"]
    assert len(find_sources([str(tmp_path / "b.txt"), f"@{listed}"])) == 3


@pytest.mark.parametrize(
    "data, said", [(None, "cannot be read"), (b"\n \n", "is empty. Expected a file"), (b"\xff", "is not UTF-8")]
)
def test_a_list_that_cannot_be_used_is_named(tmp_path, data, said):
    if data is not None:
        (tmp_path / "list").write_bytes(data)
    with pytest.raises(ValueError, match=f"--input @.*list: the list {said}"):
        find_sources([f"@{tmp_path}/list"])


def test_a_folder_of_a_store_is_named_with_a_slash_at_its_end():
    for name in ("a.txt", "sub/b.jsonl", "sub/c.doc"):
        storage.write_whole(f"memory://test-inputs/{name}", [b"x"])
    notes: list[str] = []
    assert [s.name for s in find_sources(["memory://test-inputs/"], notes)] == ["a.txt", "sub/b.jsonl"]
    assert "1 of 3 files skipped (1 .doc)" in notes[0]


def test_a_glob_that_matches_a_file_of_unknown_format_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x")
    (tmp_path / "b.doc").write_bytes(b"x")
    with pytest.raises(ValueError, match="b.doc: its name does not show its format"):
        find_sources([str(tmp_path / "*")])


def test_a_folder_that_a_glob_matches_is_read_as_a_folder(tmp_path):
    for name in ("gl/a.txt", "gl/sub/b.txt", "gl/sub/deep/c.jsonl", "gl/sub/notes.doc", "gl/sub/.d.txt", "gm/e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    notes: list[str] = []
    assert [s.name for s in find_sources([f"{tmp_path}/gl/*"], notes)] == ["a.txt", "sub/b.txt", "sub/deep/c.jsonl"]
    [note] = notes
    assert note.startswith(f"{tmp_path}/gl/*: 1 of 3 files skipped (1 .doc)")
    for pattern in ("g*", "g*/"):
        names = [s.name for s in find_sources([f"{tmp_path}/{pattern}"])]
        assert names == ["gl/a.txt", "gl/sub/b.txt", "gl/sub/deep/c.jsonl", "gm/e.txt"]
    with pytest.raises(ValueError, match="notes.doc: its name does not show its format"):
        find_sources([f"{tmp_path}/gl/**"])  # which names the files themselves


@pytest.mark.parametrize("named", ["", "caf\udce9.txt", "*"])
def test_a_file_name_that_is_not_utf8_is_an_error(tmp_path, named):
    (tmp_path / "caf\udce9.txt").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"caf\\udce9.txt': the name is not UTF-8. Rename the file or its folder"):
        find_sources([str(tmp_path / named)])


def test_a_file_of_no_format_whose_name_is_not_utf8_is_skipped(tmp_path):
    (tmp_path / "caf\udce9").write_bytes(b"x")
    (tmp_path / "a.txt").write_bytes(b"x")
    notes: list[str] = []
    assert [s.name for s in find_sources([str(tmp_path)], notes)] == ["a.txt"]
    assert r"(1 caf\udce9)" in notes[0]


def test_names_are_relative_to_the_folder_before_the_first_wildcard(tmp_path):
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / "x" / "y" / "a.txt").write_bytes(b"x")
    assert find_sources([str(tmp_path / "x" / "**" / "*.txt")])[0].name == "y/a.txt"
    assert find_sources([str(tmp_path / "x" / "y" / "a.txt")])[0].name == "a.txt"
    assert find_sources([str(tmp_path)])[0].name == "x/y/a.txt"


def test_only_the_first_of_several_files_with_the_same_name_gets_the_short_name(tmp_path):
    for day in ("day-1", "day-2", "day-3"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "a.txt").write_bytes(b"x")
    folders = [str(tmp_path / day) for day in ("day-1", "day-2", "day-3")]
    sources = {source.path: source for source in find_sources(folders[::-1])}
    assert [source.name for source in sources.values()] == [f"{folders[1]}/a.txt", f"{folders[2]}/a.txt", "a.txt"]
    assert {source.path: source for source in find_sources(folders)} == sources
    for number in (1, 2):  # tokens of earlier days are used again
        assert all(sources[source.path] == source for source in find_sources(folders[:number]))


@pytest.mark.parametrize("name", ["a[1].txt", "a?.txt", "*.txt", "[b]/a.txt", "@a.txt"])
def test_a_path_that_exists_is_not_read_as_a_pattern(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for path in (name, "a1.txt", "b/a.txt", "a.txt"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
        storage.write_whole(f"memory://{tmp_path.name}/{path}", [b"x"])
    Path("list").write_text(name)
    assert [s.path for s in find_sources([name])] == [name]
    assert [s.path for s in find_sources(["@list"])] == [name]
    url = f"memory://{tmp_path.name}/{name}"
    assert [s.path for s in find_sources([url])] == [url]
    assert [s.name for s in find_sources([os.path.dirname(url) + "/"])] == (
        ["a.txt"] if "/" in name else sorted([name, "a1.txt", "b/a.txt", "a.txt"])
    )


def test_a_folder_whose_name_looks_like_a_glob_is_taken_as_it_is_within_a_pattern(tmp_path):
    for path in ("[12]/a.txt", "1/a.txt"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_bytes(b"x")
    assert [s.path for s in find_sources([f"{tmp_path}/[12]/*.txt"])] == [f"{tmp_path}/[12]/a.txt"]


# ---- links, and what cannot be read


def test_a_loop_of_links_ends_and_each_file_is_read_once(tmp_path):
    (tmp_path / "c/sub").mkdir(parents=True)
    for name in ("a.txt", "sub/b.txt"):
        (tmp_path / "c" / name).write_bytes(b"x")
    for name, target in (("latest", "."), ("newest", "."), ("sub/up", ".."), ("0.txt", "a.txt"), ("self", "self")):
        (tmp_path / "c" / name).symlink_to(target)
    notes: list[str] = []
    assert [s.name for s in find_sources([f"{tmp_path}/c"], notes)] == ["a.txt", "sub/b.txt"]
    assert notes == [
        f"{tmp_path}/c: 1 skipped: a link that cannot be followed (Too many levels of symbolic links): {tmp_path}/c/self",
        f"{tmp_path}/c: 3 skipped: a link to a folder that is already read: {tmp_path}/c/latest, {tmp_path}/c/newest, "
        f"{tmp_path}/c/sub/up",
        f"{tmp_path}/c/0.txt: skipped, because the same file is read under another name",
    ]
    assert [s.name for s in find_sources([f"{tmp_path}/c/**/*.txt"])] == ["a.txt", "sub/b.txt"]
    (tmp_path / "linked").symlink_to("c")
    assert [s.name for s in find_sources([f"{tmp_path}/linked"])] == ["a.txt", "sub/b.txt"]


def test_files_behind_links_are_read_under_the_name_of_the_link(tmp_path):
    (tmp_path / "disk/deep").mkdir(parents=True)
    (tmp_path / "disk/deep/a.txt").write_bytes(b"x")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/more").symlink_to("../disk")
    (tmp_path / "in/b.txt").symlink_to("../disk/deep/a.txt")
    assert [s.name for s in find_sources([f"{tmp_path}/in/*.txt"])] == ["b.txt"]
    assert [s.name for s in find_sources([f"{tmp_path}/in"])] == ["more/deep/a.txt"]
    assert [s.name for s in find_sources([f"{tmp_path}/**/more/**/a.txt"])] == ["in/more/deep/a.txt"]


def test_a_link_that_leads_nowhere_is_an_error_where_it_was_named_and_reported_in_a_folder(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"{}")
    (tmp_path / "b.jsonl").symlink_to("gone/b.jsonl")
    (tmp_path / "disk2").symlink_to("/nowhere/disk2")
    for pattern in ("b.jsonl", "*.jsonl"):
        with pytest.raises(
            ValueError, match=r"b\.jsonl: is a link to gone/b\.jsonl, which cannot be read \(No such file"
        ):
            find_sources([f"{tmp_path}/{pattern}"])
    notes: list[str] = []
    assert [s.name for s in find_sources([str(tmp_path)], notes)] == ["a.jsonl"]
    assert notes == [
        f"{tmp_path}: 2 skipped: a link that cannot be followed (No such file or directory): {tmp_path}/b.jsonl, "
        f"{tmp_path}/disk2"
    ]


def test_a_pipe_is_an_error_where_it_was_named_and_reported_in_a_folder(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x")
    os.mkfifo(tmp_path / "p.txt")
    with pytest.raises(ValueError, match=r"p\.txt: is a pipe\. Expected a regular file"):
        find_sources([f"{tmp_path}/*.txt"])
    with pytest.raises(ValueError, match="/dev/zero: is a device"):
        find_sources(["/dev/zero"])
    notes: list[str] = []
    assert [s.name for s in find_sources([str(tmp_path)], notes)] == ["a.txt"]
    assert notes == [f"{tmp_path}: 1 skipped: a pipe: {tmp_path}/p.txt"]


@pytest.mark.parametrize("pattern", ["", "/", "/**/*.txt", "/*/*.txt"])
def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch, pattern):
    (tmp_path / "x").mkdir()
    (tmp_path / "a.txt").write_bytes(b"x")
    scan = os.scandir

    def locked(folder):
        if folder.endswith("x"):  # root may list every folder, so no test can lock one
            raise PermissionError(13, "Permission denied", folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(ValueError, match=r"/x: the folder cannot be listed: Permission denied\. Make it readable"):
        find_sources([f"{tmp_path}{pattern}"])


@pytest.mark.parametrize(
    "listed, content, missing",
    [
        (
            "state.json",
            '{"_data_files": [{"filename": "a.arrow"}, {"filename": "b.arrow"}]}',
            "1 of 2 listed files missing, such as b.arrow",
        ),
        ("dataset_dict.json", '{"splits": ["train"]}', "1 of 1 listed file missing, such as train/state.json"),
    ],
)
def test_a_folder_saved_by_datasets_that_lacks_a_file_is_an_error(tmp_path, listed, content, missing):
    with pa.ipc.new_stream(tmp_path / "a.arrow", pa.schema({"text": pa.string()})):
        pass
    (tmp_path / listed).write_text(content)
    with pytest.raises(ValueError, match=rf"{listed}: {missing}: copy the whole folder"):
        find_sources([str(tmp_path)])


def test_hidden_files_of_a_store_are_left_out_as_on_a_disk(tmp_path):
    root = f"memory://{tmp_path.name}"
    for name in ("a.txt", "._a.txt", ".ipynb_checkpoints/a.txt", "sub/.b.txt", "sub/c.txt"):
        storage.write_whole(f"{root}/{name}", [b"x"])
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for folder in (root, str(tmp_path)):
        for pattern in ("/", "/**", "/*"):
            assert [s.name for s in find_sources([folder + pattern])] == ["a.txt", "sub/c.txt"]
        assert [s.name for s in find_sources([f"{folder}/.*/*.txt"])] == [".ipynb_checkpoints/a.txt"]


def test_names_in_capitals_mean_the_same(tmp_path):
    (tmp_path / "A.TXT").write_bytes(b"x")
    (tmp_path / "B.JSONL").write_bytes(b'{"text": "x"}')
    (tmp_path / "C.Txt.GZ").write_bytes(gzip.compress(b"x"))
    (tmp_path / "d.ndjson").write_bytes(b'{"text": "x"}')
    found = [(s.name, s.format, s.codec) for s in find_sources([str(tmp_path)])]
    assert found == [
        ("A.TXT", "txt", None),
        ("B.JSONL", "jsonl", None),
        ("C.Txt.GZ", "txt", "gzip"),
        ("d.ndjson", "jsonl", None),
    ]


def test_a_fingerprint_changes_with_the_content_the_time_and_the_size(tmp_path):
    file = tmp_path / "a.txt"

    def fingerprint(data, time):
        file.write_bytes(data)
        os.utime(file, (time, time))
        return find_sources([str(file)])[0].fingerprint

    prints = [fingerprint(b"one", 1), fingerprint(b"two", 1), fingerprint(b"two", 2), fingerprint(b"two ", 2)]
    assert len(set(prints)) == 4
    assert fingerprint(b"one", 1) == prints[0]


def test_a_fingerprint_does_not_depend_on_the_folder_of_the_input(tmp_path):
    for sub in ("one", "two"):
        (tmp_path / sub).mkdir()
        (tmp_path / sub / "a.txt").write_bytes(b"x")
        os.utime(tmp_path / sub / "a.txt", (5, 5))
    one, two = (find_sources([str(tmp_path / sub)])[0] for sub in ("one", "two"))
    assert one.fingerprint == two.fingerprint and one.path != two.path
