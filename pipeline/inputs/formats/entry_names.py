"""Names of entries of archives: readable, and without those that are never read."""

import re

MAX_CHARACTERS = 1000  # of a name as it is shown

_CHINESE = re.compile(
    rb"(?:[\x00-\x7f]|[\xa1-\xa9\xb0-\xf7][\xa1-\xfe])*"  # GB 2312; other encodings have single bytes
)
_NOT_SHOWN = re.compile("[\0-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def decode_name(raw: bytes, otherwise: str) -> str:
    """Return a name in an unknown encoding. otherwise: its encoding if it is neither UTF-8 nor Chinese."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("gb18030" if _CHINESE.fullmatch(raw) else otherwise, "replace")


def shown_name(name: str) -> str:
    """Return a name without `./` at its beginning, and with U+FFFD for what cannot be printed."""
    name = re.sub(r"\A(\./+)+", "", name)
    if len(name) > MAX_CHARACTERS:
        name = name[:MAX_CHARACTERS] + "…"
    return _NOT_SHOWN.sub("\ufffd", name)


def never_read(name: str) -> str:
    """Return why an entry of this name is passed over, or ""."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name):
        return "unsafe-name"
    if "__MACOSX" in parts or any(part.startswith(".") for part in parts if part != "."):
        return "hidden-file"
    return ""
