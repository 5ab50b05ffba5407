"""Text that is not UTF-8 is found by its bytes, said, and read as the same documents; UTF-8 is never taken for another."""

import bz2
from contextlib import suppress
from encodings.aliases import aliases
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.inputs import streams
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.sources import ReadConfig, Split
from pipeline.inputs.splitting import split_source
from pipeline.inputs.text_encodings import as_utf8, encoding_name, find_encoding
from tests.pipeline.reading import read_with

ENGLISH = "It was the best of times, it was the worst of times.\nThere were a king and a queen.\n\n" * 20
CHINESE = "话说天下大势，分久必合，合久必分。\n这是我们在中国的生活，他们也不知道。\n\n" * 20
FRENCH = "Café déjà vu : naïve façade, “señor” Ångström…\nL’été dernier, à l’école – où ?\n\n" * 20
RUSSIAN = "Россия - государство. Привет, мир.\n\n" * 30
JAPANESE = "日本語の文章です。これはテストであり、漢字と仮名を含む。\n\n" * 20
KOREAN = "한국어 문장입니다. 이것은 시험이다.\n\n" * 20


def sizes(data: bytes) -> list[bytes]:
    return [data[:size] for size in (250, 251, 1003, 65536)]


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, FRENCH, RUSSIAN, JAPANESE, KOREAN])
@pytest.mark.parametrize(
    "encoding, found",
    [
        ("utf-8", None),
        ("utf-8-sig", None),
        ("utf-16", "utf-16-le"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("utf-32", "utf-32-le"),
    ],
)
def test_unicode_is_recognized_with_and_without_its_mark_wherever_the_head_ends(text, encoding, found):
    assert {find_encoding(head) for head in sizes(text.encode(encoding))} == {found}


@pytest.mark.parametrize(
    "text, encoding, found",
    [
        (CHINESE, "gb18030", "gb18030"),
        (CHINESE, "gb2312", "gb18030"),
        (FRENCH, "windows-1252", "windows-1252"),
        ("déjà vu, naïve façade " * 9, "latin-1", "windows-1252"),
        (CHINESE, "big5hkscs", None),
        (RUSSIAN, "windows-1251", None),
        (RUSSIAN, "koi8-r", None),
        (JAPANESE, "shift_jis", None),
        (JAPANESE, "euc_jp", None),
        (KOREAN, "euc_kr", None),
    ],
)
def test_other_encodings_are_recognized_when_there_is_little_doubt(text, encoding, found):
    assert {find_encoding(head) for head in sizes(text.encode(encoding, errors="ignore"))} == {found}


OTHER_LATIN = {
    "Hungarian": "Minden emberi lény szabadon születik és egyenlő méltósága és joga van. Az őszi eső után a fű zöld.",
    "Polish": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są obdarzeni rozumem.",
    "Czech": "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv. Jsou nadáni rozumem a svědomím.",
    "Slovak": "Všetci ľudia sa rodia slobodní a sebe rovní, čo sa týka ich dôstojnosti a práv. Sú obdarení rozumom.",
    "Croatian": "Sva ljudska bića rađaju se slobodna i jednaka u dostojanstvu i pravima. Čovječe, što želiš?",
    "Slovene": "Obdarjeni so z razumom in vestjo in bi morali ravnati drug z drugim kakor bratje. Človek, če želiš, pridi.",
    "Romanian": "Toate fiinţele umane se nasc libere şi egale în demnitate şi în drepturi. Ele sunt înzestrate cu raţiune.",
    "Turkish": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler.",
    "Latvian": "Visi cilvēki piedzimst brīvi un vienlīdzīgi savā pašcieņā un tiesībās. Viņi ir apveltīti ar saprātu.",
    "Lithuanian": "Visi žmonės gimsta laisvi ir lygūs savo orumu ir teisėmis. Jiems suteiktas protas ir sąžinė.",
    "Welsh": "Mae'r dŵr yn y tŷ; ŵyn a sêr, môr a thân, a dylai pawb ymddwyn y naill at y llall.",
    "Maltese": "Il-bnedmin kollha jitwieldu ħielsa u ugwali fid-dinjità. Huma mogħnija bir-raġuni u għandhom iġibu ruħhom.",
    "Albanian": "Të gjithë njerëzit lindin të lirë dhe të barabartë në dinjitet dhe në të drejta.",
}
WESTERN = {
    "Portuguese": "Todos os seres humanos nascem livres e iguais. As nações não são ilhas; põem corações em canções.",
    "Italian": "Tutti nascono liberi in dignità e diritti. Perché è così? La città, più giù, però lunedì sarà.",
    "Spanish": "Dotados como están de razón y conciencia. El año pasado mañana será así, ¿qué más? ¡Él sí!",
    "German": "Alle Menschen sind frei und gleich an Würde. Über große Straßen führen Wege für ältere Bürger.",
    "Swedish": "Alla människor är födda fria och lika i värde och rättigheter. På sjön åker båten.",
    "Dutch": "Eén idee: coördinatie, beëindiging, geïnteresseerd, reünie, één, vóór, hè, crêpe.",
    "Estonian": "Kõik inimesed sünnivad vabadena ja võrdsetena oma väärikuselt ja õigustelt. Neile on antud mõistus.",
}
CENTRAL = [
    "cp1250",
    "iso8859-2",
    "iso8859-16",
    "cp1254",
    "cp1257",
    "iso8859-13",
    "iso8859-3",
    "iso8859-14",
    "mac_roman",
]


@pytest.mark.parametrize("language", OTHER_LATIN)
def test_letters_that_windows_1252_lacks_are_never_read_as_others(language):
    text = f"{OTHER_LATIN[language]}\n" * 3
    tried = 0
    for encoding in CENTRAL:
        try:
            data = text.encode(encoding)
        except UnicodeEncodeError:
            continue
        if data.decode("cp1252", errors="replace") != text:
            tried += 1
            assert find_encoding(data) is None, encoding
    assert tried


@pytest.mark.parametrize("language", WESTERN)
def test_western_languages_are_recognized(language):
    for copies in (2, 30):
        assert find_encoding((f"{WESTERN[language]}\n" * copies).encode("cp1252")) == "windows-1252"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize(
    "text",
    [
        *OTHER_LATIN.values(),
        ENGLISH,
        "Tất cả mọi người sinh ra đều được tự do và bình đẳng.",
        "כל בני האדם נולדו בני חורין",
        "يولد جميع الناس أحرارا",
        "सभी मनुष्यों को गौरव",
        "มนุษย์ทั้งหลาย เกิดมามีอิสระ",
    ],
)
def test_unicode_without_its_mark_is_recognized_in_every_alphabet(text, encoding):
    assert find_encoding(text.encode(encoding)) == encoding


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\0",
        b"a\0",
        b"before\x00after \x00\x00 done\n\nnext\x00\n",
        b"\xff" * 100,
        bytes(range(256)),
        ENGLISH.encode().replace(b"t", b"\xff", 5),
        "déjà ".encode() * 9 + b"\xff\xfe\xe9",
        "café".encode("latin-1"),  # too little to tell
    ],
)
def test_doubtful_bytes_are_read_as_utf_8(head):
    assert find_encoding(head) is None


@settings(max_examples=100)
@given(
    st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.sampled_from("\t\n\r"), max_size=200), st.integers(0, 3)
)
def test_utf_8_is_never_taken_for_another_encoding(text, cut):
    data = text.removeprefix("\ufeff").encode()
    assert find_encoding(data[: len(data) - cut]) is None


ENCODINGS = ["utf-16-le", "utf-16-be", "utf-32-be", "gb18030", "windows-1252"]


@settings(max_examples=100)
@given(text=st.text(alphabet="ab é中\n😀", max_size=30), encoding=st.sampled_from(ENCODINGS), size=st.integers(1, 7))
def test_any_chunks_give_the_same_utf_8(text, encoding, size):
    data = text.encode(encoding, errors="ignore")
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    assert b"".join(as_utf8(chunks, encoding)) == data.decode(encoding).encode()


def read(folder: Path, name: str, data: bytes, start: int | None = None, notes=None, **config):
    (folder / name).write_bytes(data)
    [source] = find_sources([str(folder / name)], notes, ReadConfig(encoding=str(config.get("encoding", "auto"))))
    return source, read_with(Split(source, 0, None), start, **config)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030"])
def test_documents_are_the_same_in_every_encoding(tmp_path, encoding):
    _, whole = read(tmp_path, "a.txt", CHINESE.encode())
    source, items = read(tmp_path, "b.txt", CHINESE.encode(encoding))
    mark = 3 if encoding in ("utf-16", "utf-32") else 0  # positions are bytes of the text as UTF-8
    assert [(i.text, i.position) for i in items] == [(i.text, i.position + mark) for i in whole]
    assert split_source(source, 10) == [Split(source, 0, None, source.size)]
    for item in items[3:5]:
        assert list(read_documents(Split(source, 0, None), item.position)) == [
            i for i in items if i.position >= item.position
        ]
    assert [i.text for i in read(tmp_path, "c.txt.bz2", bz2.compress(CHINESE.encode(encoding)))[1]] == [
        i.text for i in whole
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "gb18030"])
def test_json_lines_are_the_same_in_every_encoding(tmp_path, encoding):
    lines = '{"text": "这是我们的。"}\n{"text": "你在中国。"}\n{"text": \n' * 5
    _, items = read(tmp_path, "a.jsonl", lines.encode(encoding))
    assert [getattr(i, "reason", "") or i.text.decode() for i in items] == [
        "这是我们的。",
        "你在中国。",
        "not-json",
    ] * 5


def test_a_recognized_encoding_is_reported_and_can_be_overridden(tmp_path):
    data = FRENCH.encode("windows-1252")
    notes: list[str] = []
    source, items = read(tmp_path, "a.txt", data, notes=notes)
    assert notes == ["a.txt: read as windows-1252, judging by the first bytes. Use --encoding utf-8 if they are UTF-8"]
    assert items[0].text.decode() == FRENCH.split("\n\n")[0] and source.encoding == "windows-1252"
    notes.clear()
    source, items = read(tmp_path, "a.txt", data, notes=notes, encoding="utf-8")
    assert notes == [] and source.encoding is None and items[0].num_replaced == 19
    _, items = read(tmp_path, "b.txt", RUSSIAN.encode("koi8-r"), encoding="koi8-r")
    assert items[0].text.decode() == RUSSIAN.split("\n\n")[0]


def test_an_unrecognized_encoding_is_reported(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.txt").write_bytes(RUSSIAN.encode("koi8-r"))
    notes: list[str] = []
    assert {source.encoding for source in find_sources([str(tmp_path)], notes)} == {None}
    assert notes == [
        "0.txt, 1.txt, 2.txt and 2 more files: not UTF-8, nor any encoding that can be recognized. Name it with --encoding"
    ]


def test_text_full_of_control_characters_is_reported(tmp_path):
    (tmp_path / "a.txt").write_bytes("มนุษย์ทั้งหลายเกิดมามีอิสระ".encode("utf-16-le"))  # valid UTF-8, but without a space
    notes: list[str] = []
    assert find_sources([str(tmp_path)], notes)[0].encoding is None
    assert notes == ["a.txt: not UTF-8, nor any encoding that can be recognized. Name it with --encoding"]


def test_bytes_that_are_invalid_in_their_encoding_are_replaced_and_counted(tmp_path):
    [one, two] = read(tmp_path, "a.txt", "\ufeff一\n\n".encode("utf-16-le") + b"\x00\xd8a\x00b\x00c")[1]
    assert (one.num_replaced, two.num_replaced) == (0, 2)  # half a pair, and half a character
    assert two.text.decode() == "\ufffdab\ufffd"


def test_a_truncated_archive_of_another_encoding_keeps_what_came_before(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK", 100)
    data = bz2.compress((CHINESE * 300).encode("utf-16-le")) + bz2.compress(b"more" * 9)[:30]
    source, items = read(tmp_path, "a.txt.bz2", data)
    assert len(items) == 6001 and items[-1].reason == "damaged-file"
    assert items[-1].position == len((CHINESE * 300).encode())
    assert list(read_documents(Split(source, 0, None), items[-1].position)) == items[-1:]


@pytest.mark.parametrize("name", ["nonsense", "base64", "rot13"])
def test_a_name_of_no_text_encoding_is_refused(name):
    with pytest.raises(
        ValueError, match=f"--encoding {name}: Python has no such text encoding. Expected auto, or a name such as"
    ):
        ReadConfig(encoding=name)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
@pytest.mark.parametrize("order", ["", "-le", "-be"])
@pytest.mark.parametrize("text", [ENGLISH, CHINESE])
def test_a_named_encoding_needs_no_mark_of_its_byte_order(tmp_path, encoding, order, text):
    (tmp_path / "a.txt").write_bytes(text.encode(encoding + order))
    [source] = find_sources([str(tmp_path / "a.txt")], None, ReadConfig(encoding=encoding))
    texts = [item.text for split in split_source(source, 1000) for item in read_documents(split)]
    assert texts == [part.encode() for part in text.strip().split("\n\n")]


@pytest.mark.parametrize("data", [b"", b"a", b"a.b.", b"\xff"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_short_file_in_a_named_encoding_is_read_in_little_endian_order(tmp_path, encoding, data):
    (tmp_path / "a.txt").write_bytes(data)
    [source] = find_sources([str(tmp_path / "a.txt")], None, ReadConfig(encoding=encoding))
    assert source.encoding == f"{encoding}-le"
    assert len([item for split in split_source(source, 1000) for item in read_documents(split)]) == (len(data) > 0)


def names_of_encodings() -> list[str]:
    """The encodings of Python that --encoding takes."""
    names = []
    for name in sorted({*aliases.values(), "utf_7", "raw_unicode_escape"}):
        with suppress(ValueError):
            names.append(encoding_name(name))
    return [name for name in dict.fromkeys(names) if name and name not in ("utf-16", "utf-32")]


@pytest.mark.filterwarnings("ignore:invalid (escape|octal):DeprecationWarning")
@given(name=st.sampled_from(names_of_encodings()), data=st.binary() | st.text("+-Aa2Z8\\uxN{}0dD/. \n").map(str.encode))
@example("utf-7", b"+2AA-")
@settings(max_examples=500)
def test_any_bytes_in_any_encoding_become_utf8(name, data):
    for size in (3, 1000):
        found = b"".join(as_utf8([data[at : at + size] for at in range(0, len(data), size)], name))
        assert found.replace(b"\xff", b"?").decode().count("?") >= found.count(b"\xff")


@pytest.mark.parametrize("name", ["idna", "punycode"])
def test_an_encoding_of_names_of_hosts_is_not_one_of_texts(name):
    with pytest.raises(ValueError, match=f"--encoding {name}: Python has no such text encoding"):
        ReadConfig(encoding=name)


def test_names_of_encodings_are_pythons():
    assert [encoding_name(name) for name in ("utf8", "UTF-8", "latin-1", "GBK")] == [None, None, "iso8859-1", "gbk"]
