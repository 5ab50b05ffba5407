"""Archives: the files in them give the same documents as files in a folder, and records name the file in the archive."""

import io
import json
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertloom import storage
from pipeline.inputs import archives
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents, text_versions
from pipeline.inputs.formats import zip_archive
from pipeline.inputs.formats.registry import position_unit
from pipeline.inputs.sources import ReadConfig, Source, Split
from pipeline.inputs.splitting import split_source
from pipeline.text.cleaning import CleanConfig
from pipeline.text.records import Document, PassedOver, Record, Reject, place_of
from tests.pipeline.archive_files import METHODS, PACK, Files, entry, files_of_all_formats, make_tar, make_zip
from tests.pipeline.reading import with_options

FILES = files_of_all_formats()
TAR_FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("archives")


def source_of(folder: Path, name: str, data: bytes, **options) -> Source:
    (folder / name).write_bytes(data)
    [source] = find_sources([str(folder / name)])
    return with_options(source, **options)


def read(folder: Path, name: str, data: bytes, **options) -> list[Record]:
    return list(read_documents(Split(source_of(folder, name, data, **options), 0, None)))


def essence(name: str, item: Record) -> tuple:
    """A record as it is in its own file."""
    content = item.text if isinstance(item, Document | Reject) else ""
    place = place_of(name, item) if isinstance(item, Document | Reject) else (name, item.position)
    return *place, item.piece, content, getattr(item, "reason", "")


@pytest.fixture(scope="module")
def alone(folder) -> Callable[[str], list[tuple]]:
    """The records of a file, read alone."""

    @cache
    def read_alone(name: str) -> list[tuple]:
        items = read(folder, name.replace("/", "-"), FILES[name])
        return [essence(name, item) for item in items if not isinstance(item, PassedOver)]

    return read_alone


def archive_of(kind: str, files: Files, draw: int) -> bytes:
    if kind == "zip":
        return make_zip(files, list(METHODS)[draw % len(METHODS)])
    return make_tar(files, kind.removeprefix("tar"), TAR_FORMATS[draw % 3])


KINDS = [f"tar{ending}" for ending in PACK] + ["zip"]
ENTRIES = st.lists(st.sampled_from(sorted(FILES)), unique=True, min_size=1, max_size=6)


@settings(max_examples=25, deadline=None)
@given(
    outer=st.sampled_from(KINDS),
    parts=st.lists(st.tuples(ENTRIES, st.none() | st.sampled_from(KINDS)), min_size=1, max_size=4),
    draw=st.integers(0, 11),
    split_bytes=st.integers(1, 5000),
    places=st.sets(st.integers(0, 150), max_size=5),
)
def test_files_in_an_archive_give_the_records_that_they_give_alone(
    folder, alone, outer, parts, draw, split_bytes, places
):
    files, names = [], []
    for number, (entries, inner) in enumerate(parts):
        inside = [(f"{number}/{name}", FILES[name]) for name in entries]
        if inner is None:
            files += inside
            names += [name for name, _ in inside]
        else:
            archive = f"{number}.{inner}"
            files.append((archive, archive_of(inner, inside, draw)))
            names += [f"{archive}!{name}" for name, _ in inside]
    source = source_of(folder, f"a.{outer}", archive_of(outer, files, draw))
    whole = list(read_documents(Split(source, 0, None)))
    found = [essence("A", item) for item in whole if not isinstance(item, PassedOver)]
    wanted = [(f"A!{name}", *rest) for name in names for _, *rest in alone(name.partition("/")[2])]
    assert found == wanted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zip_archive, "ENTRY_BYTES", 0)
        splits = split_source(source, split_bytes)
    assert [item for split in splits for item in read_documents(split)] == whole
    positions = [item.position for item in whole]
    assert positions == sorted(positions)
    for position in {positions[place % len(positions)] for place in places if positions}:
        split = next(split for split in splits if split.end is None or position < split.end)
        rest = [
            item for item in whole if item.position >= position and (split.end is None or item.position < split.end)
        ]
        assert list(read_documents(split, position)) == rest


def test_a_record_of_an_archive_names_its_file_and_its_place_there(folder):
    inner = make_tar([("./b.jsonl", b'{"text": "Two."}\n{"text": 3}\n')], ".xz")
    items = read(folder, "n.tar.gz", make_tar([("a.txt", b"\n\nOne."), ("x/urlsf-1_data.xz", inner)], ".gz"))
    assert [place_of("n.tar.gz", item) for item in items] == [
        ("n.tar.gz!a.txt", 2),
        ("n.tar.gz!x/urlsf-1_data.xz!b.jsonl", 0),
        ("n.tar.gz!x/urlsf-1_data.xz!b.jsonl", 17),
    ]
    assert [getattr(item, "reason", "") for item in items] == ["", "", "text-not-a-string"]


def test_each_file_of_an_archive_is_a_document_with_the_layout_file(folder):
    data = make_zip([("a.txt", b"One.\n\nTwo."), ("b.txt", b"Three.")])
    assert [item.text for item in read(folder, "l.zip", data, text_layout="file")] == [b"One.\nTwo.", b"Three."]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/a.txt", "unsafe-name"),
        ("a/../../b.txt", "unsafe-name"),
        ("C:/a.txt", "unsafe-name"),
        ("__MACOSX/a.txt", "hidden-file"),
        ("a/._b.txt", "hidden-file"),
        (".git/a.txt", "hidden-file"),
        ("image.png", "unknown-format"),
        ("README", "unknown-format"),
    ],
)
@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_files_with_such_names_are_passed_over_and_counted(folder, kind, name, reason):
    data = archive_of(kind, [(name, b"Text."), ("good.txt", b"Good.")], 1)
    bad, good = read(folder, f"p.{kind}", data)
    assert isinstance(bad, PassedOver) and bad.reason == reason
    assert good.text == b"Good."


def tar_of_entries(*entries: tarfile.TarInfo) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for info in entries:
            tar.addfile(info, io.BytesIO(b"x" * info.size))
    return file.getvalue()


def test_links_devices_and_pipes_in_a_tar_are_passed_over_and_folders_are_not_counted(folder):
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
    entries = [entry(f"{i}.txt", type=kind, linkname="z.txt") for i, kind in enumerate(kinds)]
    items = read(folder, "k.tar", tar_of_entries(*entries, entry("z.txt", size=3)))
    assert [getattr(item, "reason", "") for item in items] == ["link", "link", *["not-a-file"] * 3, ""]
    assert items[-1].text == b"xxx"


def test_a_sparse_file_in_a_tar_is_passed_over(folder):
    sparse = entry("a.txt", size=3, type=tarfile.GNUTYPE_SPARSE)
    items = read(folder, "s.tar", tar_of_entries(sparse, entry("z.txt", size=3)))
    assert [getattr(item, "reason", "") for item in items] == ["sparse-file", ""]
    pax = entry("b.txt", size=3, pax_headers={"GNU.sparse.major": "1"})
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(pax, io.BytesIO(b"xxx"))
    assert [item.reason for item in read(folder, "t.tar", file.getvalue())] == ["sparse-file"]


def test_an_archive_within_an_archive_in_an_archive_is_passed_over(folder):
    data = make_tar([("a.txt", b"One.")])
    for name in ("in.tar", "middle.zip"):
        data = make_zip([(name, data), ("b.txt", b"Two.")])
    items = read(folder, "o.tar", make_tar([("m.zip", data), ("c.txt", b"Three.")]))
    assert [getattr(item, "reason", "") or item.text for item in items] == ["nested-archive", b"Two.", b"Three."]


def test_long_and_chinese_names_are_kept(folder):
    long = "folder/" * 40 + "a.txt"
    for tar_format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        [item] = read(folder, "long.tar", make_tar([(long, b"One.")], "", tar_format))
        assert item.entry.name == long
    gbk = make_zip([("????/??.txt", b"One.")]).replace(b"????/??.txt", "红楼/一.txt".encode("gbk"))
    [item] = read(folder, "gbk.zip", gbk)
    assert item.entry.name == "红楼/一.txt"
    utf8 = make_zip([("红楼梦.txt", b"One.")])
    assert read(folder, "utf8.zip", utf8)[0].entry.name == "红楼梦.txt"
    western = make_zip([("M?ller.txt", b"One.")]).replace(b"M?ller", b"M\x81ller")
    assert read(folder, "437.zip", western)[0].entry.name == "Müller.txt"
    breaks = make_tar([("a\n\x1b[31m.txt", b"One.")])
    assert read(folder, "breaks.tar", breaks)[0].entry.name == "a\ufffd\ufffd[31m.txt"


def test_a_file_whose_name_and_content_do_not_agree_is_a_reject_and_the_others_are_read(folder):
    data = make_tar([("a.parquet", b"no table"), ("b.jsonl", FILES["table.parquet"]), ("c.txt", b"Good.")])
    bad, worse, good = read(folder, "u.tar", data)
    assert (bad.reason, worse.reason) == ("unreadable-file", "unreadable-file")
    assert "u.tar!a.parquet: its first bytes are not those of Parquet" in bad.detail
    assert good.text == b"Good."


def test_a_table_without_the_text_column_in_an_archive_is_a_reject(folder):
    [item] = read(folder, "c.tar", make_tar([("a.parquet", FILES["table.parquet"])]), text_column="content")
    assert item.reason == "unreadable-file" and "has no column 'content'" in item.detail


def test_a_file_that_must_be_unpacked_and_is_too_large_is_a_reject(folder, monkeypatch):
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 1000)
    files = [("t.parquet", FILES["table.parquet"]), ("a.txt.gz", PACK[".gz"](b"One.")), ("b.txt", b"x" * 2000)]
    items = read(folder, "m.tar.gz", make_tar(files, ".gz"))
    assert [getattr(item, "reason", "") for item in items] == ["too-large", "", ""]
    assert len(read(folder, "m.tar", make_tar(files))) == 15  # an uncompressed tar gives random access


@pytest.mark.parametrize("first", ["mimetype", "[Content_Types].xml", "META-INF/MANIFEST.MF"])
def test_a_document_or_a_program_in_a_zip_is_not_read(folder, first):
    with pytest.raises(ValueError, match="is a document or a program in a zip"):
        read(folder, "d.zip", make_zip([(first, b"x"), ("a.txt", b"One.")]))
    [item] = read(folder, "e.zip", make_zip([("a.txt", b"One."), (first, b"x")]))
    assert item.reason == "not-an-archive"
    [item] = read(folder, "f.tar", make_tar([("a.docx", make_zip([(first, b"x")]))]))
    assert item.reason == "unknown-format"


def test_a_shard_of_bertloom_is_not_taken_for_text(folder):
    with pytest.raises(ValueError, match="is a shard that bertloom made"):
        read(folder, "00000.tar", make_tar([("00000-000000.arrow", FILES["table.arrow"])]))


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_records_are_grouped_within_each_file_of_an_archive(folder, kind):
    lines = "".join(json.dumps({"text": text}) + "\n" for text in ["One.", "Two.", "", "Three."]).encode()
    files = [("a.jsonl", lines), ("b.jsonl.gz", PACK[".gz"](lines)), ("c.txt", b"Four.\n\nFive.\n")]
    items = read(folder, f"r.{kind}", archive_of(kind, files, 1), records="lines")
    found = [(item.entry.name, item.text.split()) for item in items if isinstance(item, Document)]
    names = [name for name, _ in files for _ in range(2)]
    assert found == list(zip(names, [[b"One.", b"Two."], [b"Three."]] * 2 + [[b"Four."], [b"Five."]]))
    by_two = read(folder, f"s.{kind}", archive_of(kind, files[:2], 1), records="sentences", records_per_document=2)
    assert [item.text.split() for item in by_two if isinstance(item, Document)] == [[b"One.", b"Two."], [b"Three."]] * 2


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_a_large_file_that_is_looked_at_before_it_is_read_is_read_whole(folder, kind):
    texts = [f"Text {i} of many. " * 20 for i in range(5000)]
    csv = "id,text\n" + "".join(f'{i},"{text}"\n' for i, text in enumerate(texts))
    pages = "".join(
        f"<page><title>{i}</title><revision><text>{text}</text></revision></page>" for i, text in enumerate(texts)
    )
    files = [("a.csv", csv.encode()), ("b.xml", f"<mediawiki>{pages}</mediawiki>".encode())]
    items = read(folder, f"l.{kind}", archive_of(kind, files, 1))
    assert [item.text.decode() for item in items if isinstance(item, Document)] == [text.strip() for text in texts * 2]


def test_the_format_that_is_given_is_that_of_the_files_in_an_archive(folder):
    files = [("sentences", b"1\tOne.\n2\tTwo.\n"), ("more.dat", b"3\tThree.\n")]
    for name, data in {"f.tar.gz": make_tar(files, ".gz"), "f.zip": make_zip(files)}.items():
        (folder / name).write_bytes(data)
        options = ReadConfig(format="tsv", header="no", text_column="1")
        [source] = find_sources([str(folder / name)], None, options)
        items = [item for split in split_source(source, 1 << 20) for item in read_documents(split)]
        assert [item.text for item in items] == [b"One.", b"Two.", b"Three."]
    (folder / "archive").write_bytes(make_tar([("a.txt", b"One.")]))
    [source] = find_sources([str(folder / "archive")], None, ReadConfig(format="tar"))
    assert [item.text for item in read_documents(Split(source, 0, None))] == [b"One."]


def test_the_licence_of_gutenberg_is_removed_from_files_in_an_archive(folder):
    start, end = (b"*** %s OF THE PROJECT GUTENBERG EBOOK A ***" % word for word in (b"START", b"END"))
    book = b"Licence.\n" + start + b"\n\nText.\n\n" + end + b"\nMore."
    items = read(
        folder, "g.zip", make_zip([("1.txt", book), ("2.txt", book)]), strip_gutenberg=True, text_layout="file"
    )
    assert [item.text for item in items if isinstance(item, Document)] == [b"Text.", b"Text."]


def test_a_text_in_an_archive_whose_layout_does_not_show_where_books_begin_is_a_reject(folder):
    [item] = read(folder, "books.zip", make_zip([("a.txt", b"A text.\n")]), strip_gutenberg=True)
    assert isinstance(item, Reject) and item.reason == "unreadable-file" and "Give --text-layout file" in item.detail


def test_the_place_of_damage_in_an_archive_is_a_byte_of_it():
    assert position_unit("a.tar", "tar", "a.tar") == position_unit("a.zip", "zip", "a.zip") == "byte"
    assert position_unit("a.tar", "tar", "a.tar!b.parquet") == "row"


def test_the_encoding_of_each_file_in_an_archive_is_found(folder):
    text = "Äpfel, Öl, Übel, größer, süß, früh, spät, schön: Wörter für Übungen."
    files = [("a.txt", text.encode("cp1252")), ("b.txt", text.encode()), ("c.txt", text.encode("utf-16"))]
    assert [item.text.decode() for item in read(folder, "e.tar.gz", make_tar(files, ".gz"))] == [text] * 3


def test_a_compressed_zip_and_a_zip_in_a_store_are_read(folder, monkeypatch):
    files = [("a.txt", b"One."), ("b.txt", b"Two.")]
    packed = PACK[".gz"](make_zip(files))
    assert [item.text for item in read(folder, "z.zip.gz", packed)] == [b"One.", b"Two."]
    assert [getattr(item, "reason", "") for item in read(folder, "z.zip.gz", packed[:-20])][-1] == "damaged-file"
    for name, data in {"a.zip": make_zip(files), "a.tar": make_tar(files), "a.tgz": make_tar(files, ".gz")}.items():
        path = f"memory://archives/{name}"
        storage.write_whole(path, [data])
        [source] = find_sources([path])
        items = [item for split in split_source(source, 1) for item in read_documents(split)]
        assert [item.text for item in items] == [b"One.", b"Two."]
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 100)
    [item] = read(folder, "z.zip.gz", packed)
    assert item.reason == "too-large" and place_of("z.zip.gz", item) == ("z.zip.gz", 0)


def test_versions_of_an_archive_are_those_of_all_formats_that_are_installed():
    versions = text_versions(CleanConfig(), "tar")
    assert {"mwparserfromhell", "resiliparse"} <= versions.keys() and "not installed" not in versions.values()
    assert text_versions(CleanConfig(), "txt") == {}
