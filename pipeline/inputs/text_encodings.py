"""Text that is not UTF-8: its encoding is recognized by the first bytes, and it is converted to UTF-8.

UTF-16 and UTF-32, GB18030 and Windows-1252 (which includes Latin-1) are recognized, and only when the bytes leave little
doubt. Other bytes are read as UTF-8, and those that are not valid become U+FFFD. Text of central Europe and the Baltic in
its own encodings is not recognized: the same bytes are other letters in Windows-1252, and only a person can decide.
"""

import codecs
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from pipeline.inputs.streams import Damaged
from pipeline.text.records import is_utf8

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_BYTE_FF = "bertloom-byte-ff"  # name of the handler of errors below
_LEAST = 8  # fewest non-ASCII bytes that can show an encoding

_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_HIGH = re.compile(rb"[\x80-\xff]+")
# curly quotes, dashes, the no-break space, ¡¿«»°, and the letters of western Europe but for the rarest
_WESTERN = re.compile(
    rb"(?<![A-Za-z])\x91|[\x85\x92-\x97\xa0\xa1\xa7\xab\xb0\xb4\xb7\xba\xbb\xbf\xc0-\xcf\xd1-\xd6\xd8-\xdc\xdf-\xef\xf1-\xf6\xf8-\xfc]"
)
# the alphabets from Latin to Khmer, Vietnamese letters, Chinese, Japanese, Korean and punctuation
_USUAL = re.compile("[\t\n\r -\u1fff\u2010-\u2027\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7a3\uff00-\uff60]")
# Encodings whose text looks like Windows-1252: (encoding, non-ASCII letters of a language, those that other ones lack)
_NOT_WESTERN = (
    ("cp1250", "áéíóöőúüű", "őű"),  # Hungarian
    ("iso8859-16", "áéíóöőúüű", "őű"),
    ("cp1250", "áčďéěíňóřšťúůýž", "šýž"),  # Czech
    ("iso8859-2", "áčďéěíňóřšťúůýž", "šýž"),
    ("cp1250", "áäčďéíĺľňóôŕšťúýž", "ľšýž"),  # Slovak
    ("iso8859-2", "áäčďéíĺľňóôŕšťúýž", "ľšýž"),
    ("cp1257", "ąćęłńóśźż", "ęł"),  # Polish
    ("cp1257", "āčēģīķļņšūž", "š"),  # Latvian
)
# a third of the characters of modern Chinese text are in this list
_COMMON_CHINESE = frozenset(
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得经"
    "十三之进着等部度家电力里如水化高自二理起小物现实加量都两体制机当使点从业本去把性好应开它合还因由其些然前外天政四日那社义事平"
    "這個國為們時來對會發動過說產種後學經進電裡實兩體機當點從業應開還"
)


def encoding_name(encoding: str) -> str | None:
    """Return Python's name for an encoding, or None for UTF-8. Raises ValueError for what is not a text encoding."""
    try:
        name = codecs.lookup(encoding).name
        "".encode(name)
        _decoder(name).decode(codecs.BOM_UTF16_LE)  # "idna" and "punycode" do not go on after an invalid byte
    except (LookupError, UnicodeError):  # Python has an encoding called "undefined"
        raise ValueError(
            f"--encoding {encoding}: Python has no such text encoding. Expected auto, or a name such as utf-8, gb18030 or "
            f"windows-1252"
        ) from None
    return None if name == "utf-8" else name


def find_encoding(head: bytes) -> str | None:
    """Return the encoding of a text by its first bytes; None for UTF-8 and for what cannot be recognized."""
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    for encoding in ("utf-32-le", "utf-32-be"):
        if _is_utf32(head, encoding):
            return encoding
    utf8 = _is_cut_utf8(head)
    if utf8 and head.startswith(codecs.BOM_UTF8):
        return None
    # UTF-8 has few control characters but CR LF. In UTF-16, every second byte of an alphabet's text is one
    without_ends = head.replace(b"\r\n", b"")
    num_controls = len(without_ends) - len(without_ends.translate(None, bytes(range(32))))
    if not utf8 or (3 * num_controls > len(head) and num_controls >= _LEAST):
        for encoding in ("utf-16-le", "utf-16-be"):
            if _is_utf16(head, encoding):
                return encoding
    if utf8:
        return None
    runs = _HIGH.findall(head)
    num_high = sum(map(len, runs))
    if num_high < _LEAST or _is_damaged_utf8(head):
        return None
    if sum(len(run) for run in runs if len(run) > 1) > 0.9 * num_high:
        return "gb18030" if _is_gb18030(head) else None
    is_western = len(_WESTERN.findall(head)) > 0.95 * num_high and not _may_be_other_latin(b"".join(runs))
    return "windows-1252" if is_western else None


def encoding_of(head: bytes, option: str) -> str | None:
    """Return the encoding of a text with these first bytes; None for UTF-8. option: the value of --encoding.

    The order of bytes in UTF-16 and UTF-32 is little-endian unless the first bytes show another one.
    """
    if option == "auto":
        return find_encoding(head)
    name = encoding_name(option)
    if name in ("utf-16", "utf-32"):  # Python's decoders of these refuse a text without a byte order mark
        found = find_encoding(head) or ""
        return found if found.startswith(name) else f"{name}-le"
    return name


def is_mostly_utf8(head: bytes) -> bool:
    """Return whether it is valid UTF-8 but for one byte in a hundred, and not full of control characters."""
    return _num_replaced(head) * 100 <= len(head) and not _is_full_of_controls(head)


def as_utf8(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Yield the text as UTF-8. Bytes that are invalid in `encoding` become 0xFF, so that they are counted as invalid."""
    decoder, position = _decoder(encoding), 0
    try:
        for chunk in chunks:
            data = decoder.decode(chunk).encode("utf-8", _BYTE_FF)
            position += len(data)
            yield data
    except Damaged as damage:
        raise Damaged(position, str(damage)) from damage
    yield decoder.decode(b"", final=True).encode("utf-8", _BYTE_FF)


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder(encoding)(_BYTE_FF)


def _byte_ff(error: UnicodeError) -> tuple[str | bytes, int]:
    """Decode invalid bytes as a lone surrogate, and encode lone surrogates, which UTF-7 can also hold, as 0xFF."""
    if isinstance(error, UnicodeEncodeError):
        return b"\xff" * (error.end - error.start), error.end
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", error.end


codecs.register_error(_BYTE_FF, _byte_ff)


def _is_cut_utf8(head: bytes) -> bool:
    """Return whether it is UTF-8, the last character of which may be cut."""
    return any(is_utf8(head[: len(head) - cut]) for cut in range(4))


def _num_replaced(head: bytes) -> int:
    return head.decode(errors="replace").count("\ufffd") - head.count(b"\xef\xbf\xbd")


def _is_damaged_utf8(head: bytes) -> bool:
    """Return whether it has as many characters of several bytes as invalid bytes: by chance there would be few."""
    num_good = sum(character > "\x7f" and character != "\ufffd" for character in head.decode(errors="replace"))
    return num_good >= _num_replaced(head)


def _is_full_of_controls(head: bytes) -> bool:
    return 3 * len(_CONTROLS.findall(head)) > len(head)


def _is_utf32(head: bytes, encoding: str) -> bool:
    """Return whether it is UTF-32. Other text is never valid UTF-32 by chance."""
    try:
        text = head[: len(head) // 4 * 4].decode(encoding)
    except UnicodeDecodeError:
        return False
    return len(head) >= _LEAST and not re.search("[\0-\x08\x0e-\x1f]", text)


def _may_be_other_latin(high: bytes) -> bool:
    """Return whether nearly all of these non-ASCII bytes are letters of a language that Windows-1252 cannot write."""
    counts = Counter(high)
    for encoding, letters, telling in _NOT_WESTERN:
        known, shown = ((text + text.upper()).encode(encoding) for text in (letters, telling))
        num_letters = sum(n for byte, n in counts.items() if byte >= 0xB5 or byte in known)  # not punctuation
        num_known, num_shown = (sum(counts[byte] for byte in set(some)) for some in (known, shown))
        if num_known > 0.98 * num_letters and num_shown > 0.02 * num_letters:
            return True
    return False


def _is_utf16(head: bytes, encoding: str) -> bool:
    """Return whether nearly all characters are Latin, Greek, Cyrillic, Chinese, Japanese, Korean or punctuation."""
    if len(head) < _LEAST:
        return False
    text = head[: len(head) // 2 * 2].decode(encoding, errors="replace")
    return len(_USUAL.findall(text)) > 0.95 * len(text) and re.search("[\n 。，]", text) is not None


def _is_gb18030(head: bytes) -> bool:
    text = head.decode("gb18030", errors="replace")[:-2]  # the last character may be cut
    chinese = [c for c in text if c >= "\u3400"]
    common = sum(c in _COMMON_CHINESE for c in chinese)
    return "\ufffd" not in text and len(chinese) >= _LEAST and common > 0.12 * len(chinese)
