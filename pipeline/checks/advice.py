"""What looks wrong with the way in which files are read, and which flag would put it right.

Each check takes a `Look` and returns a sentence, or "" if nothing looks wrong. None of them changes a setting.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from bertloom.counts import counted
from pipeline.checks.first_look import Look
from pipeline.inputs.rejects import advice as advice_about
from pipeline.text.records import DAMAGED
from pipeline.tokenizer import TokenizeConfig
from pipeline.vocabulary import CLOSING_MARKS, SENTENCE_ENDS

MANY = 0.8
"""Share of documents from which a group is said to be of one kind."""
SOME = 0.05
MANY_EMPTY = 0.01
"""Share of empty records from which they seem to separate documents."""
FEW_DOCUMENTS = 20
"""With fewer documents, nothing is said about shares of them."""
SHORT = 300
"""Characters of a text that may be one sentence."""
HEADING = 80
"""Characters of a text that may be a heading."""
MOST_CAPITALS = 0.0005
"""Share of capitals among the letters of text that was lower-cased. Usual text has 3 to 5 %."""
MOST_UNKNOWN = 0.02
"""Share of [UNK] from which a vocabulary does not fit. With its own vocabulary, text has at most 0.5 %."""

TEXT_COLUMNS = ("text", "content", "raw_content", "body", "article", "document", "story", "sentence", "desc")
"""Names that the text has in many corpora, the likeliest first."""

_TITLE = re.compile(r"=+ [^=].* =+")
_TAG = re.compile(r"</?(?:p|br|div|span|a|li|ul|td|tr|table|h[1-6]|b|i|em|strong)(?:\s[^<>]*)?/?>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|nbsp|apos|#\d+|#x[0-9a-f]+);", re.IGNORECASE)
_WIKIEXTRACTOR = re.compile(r'<doc id="[^"]*" (?:revid="[^"]*" )?url="')
_GUTENBERG = re.compile(r"\*\*\*\s*START OF (?:THE|THIS) PROJECT GUTENBERG", re.IGNORECASE)
_SENTENCE_LOCALES = {"Hiragana": "ja", "Katakana": "ja", "Thai": "th", "Lao": "lo", "Khmer": "km", "Myanmar": "my"}

Check = Callable[[Look, TokenizeConfig], str]


def advice(look: Look, config: TokenizeConfig, needs_pairs: bool = True) -> list[str]:
    """Return what looks wrong with a group of files, each with the flag that would put it right.

    needs_pairs: whether the objective needs documents of several sentences.
    """
    if look.error:
        return [look.error]
    checks = [check for check in CHECKS if needs_pairs or check is not _sentences]
    return [f"{look.format}: {found}" for check in checks if (found := check(look, config))]


def _share(look: Look, holds: Sequence[bool]) -> float:
    return sum(holds) / len(holds) if len(look.documents) >= FEW_DOCUMENTS else 0.0


def _ends_sentence(text: str) -> bool:
    return text.rstrip("".join(CLOSING_MARKS))[-1:] in SENTENCE_ENDS


def _rejects(look: Look, config: TokenizeConfig) -> str:
    number = len(look.documents) + len(look.rejects)
    reasons = Counter(reject.reason for _, reject in look.rejects)
    if not reasons or len(look.rejects) < SOME * number:
        return ""
    reason = reasons.most_common(1)[0][0]
    if look.documents and reason == "empty-text":
        return ""  # about lines, below
    name, first = next((name, reject) for name, reject in look.rejects if reject.reason == reason)
    more = [first.detail, _column(reason, first.detail) or advice_about(reason, look.read)]
    told = ": ".join(filter(None, [f"{reason} ({name} at {first.position:,})", *more]))
    return f"{len(look.rejects):,} of {counted(number, 'record')} cannot be used, most because of {told}"


def _column(reason: str, detail: str) -> str:
    """Return which of the fields that a reject lists seems to hold the text."""
    if reason != "no-text-field":
        return ""
    fields = re.split(r", ", detail.removeprefix("fields: ")) if detail.startswith("fields: ") else []
    likely = next((name for name in TEXT_COLUMNS if name in fields), "")
    return f"give --text-column {likely}" if likely else ""


def _nothing(look: Look, config: TokenizeConfig) -> str:
    """Files without a single record that could be a document."""
    if look.documents or look.rejects:
        return ""
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in look.passed_over.most_common())
    return f"no document was found in {counted(look.num_files, 'file')}{f' ({reasons})' if reasons else ''}"


def _damage(look: Look, config: TokenizeConfig) -> str:
    damaged = sorted({name for name, reject in look.rejects if reject.reason == DAMAGED})
    return f"{damaged[0]} is damaged: copy it again" if damaged else ""


def _wikitext(look: Look, config: TokenizeConfig) -> str:
    """The lines of WikiText, with titles between equals signs."""
    titles = _share(look, [bool(_TITLE.fullmatch(text.strip())) for text in look.texts])
    if look.read.records != "documents" or titles < MANY_EMPTY:
        return ""
    return f"{titles:.0%} of the documents are titles such as = Title =, as in WikiText: give --like wikitext"


def _columns(look: Look, config: TokenizeConfig) -> str:
    """Lines with columns in files that are read as plain text."""
    if not look.has_layouts or not look.documents:
        return ""
    lines = [line for text in look.texts for line in text.split("\n")]
    counts = Counter(line.count("\t") for line in lines)
    tabs, number = counts.most_common(1)[0]
    if not tabs or len(lines) < FEW_DOCUMENTS or number < MANY * len(lines):
        return ""
    widths = [
        sum(map(len, column)) for column in zip(*(line.split("\t") for line in lines if line.count("\t") == tabs))
    ]
    return (
        f"the lines have {tabs + 1} columns separated by tabs: give --format tsv --header no --text-column "
        f"{widths.index(max(widths))}"
    )


def _lines(look: Look, config: TokenizeConfig) -> str:
    """Records that are the lines of documents."""
    if not look.has_rows or look.read.records != "documents" or len(look.documents) < FEW_DOCUMENTS:
        return ""
    empty = sum(reject.reason == "empty-text" for _, reject in look.rejects)
    share = empty / (empty + len(look.documents))
    if share < MANY_EMPTY or np.median(look.num_sentences) > 5 or _wikitext(look, config):
        return ""
    return (
        f"{share:.0%} of the records are empty, as between the documents of a file of lines. If a record is a line, give "
        f"--records lines"
    )


def _sentences(look: Look, config: TokenizeConfig) -> str:
    """Records that are sentences."""
    if not look.has_rows or look.read.records != "documents" or _lines(look, config):
        return ""
    one = _share(look, [len(text) <= SHORT and n <= 1 for text, n in zip(look.texts, look.num_sentences)])
    if one < MANY:
        return ""
    return (
        f"{one:.0%} of the records are one sentence. If a record is a sentence of a longer text, give --records sentences "
        f"with --document-column NAME or --records-per-document 64. If their order means nothing, give --pairs none"
    )


def _headings(look: Look, config: TokenizeConfig) -> str:
    """Paragraphs and headings that are taken for documents."""
    if not look.has_layouts or look.read.records != "documents" or look.read.text_layout == "file":
        return ""
    if _wikitext(look, config) or _columns(look, config):
        return ""
    is_heading = [len(text) <= HEADING and n <= 1 and not _ends_sentence(text) for text, n in _pairs(look)]
    share = _share(look, is_heading)
    sentences = float(np.mean(look.num_sentences)) if len(look.num_sentences) else 0.0
    per_file = len(look.documents) / max(1, look.num_texts)
    if look.read.text_layout == "blank-line" and share >= 2 * SOME and share < MANY:
        return (
            f"{share:.0%} of the documents are headings: blank lines seem to separate paragraphs. If each file is one "
            f"document, give --text-layout file"
        )
    if max(len(look.sources), look.num_texts) >= 5 and per_file >= 10 and sentences < 10:
        return (
            f"the files have about {per_file:.0f} documents of {sentences:.1f} sentences each. If each file is one "
            f"document, give --text-layout file"
        )
    if look.read.text_layout == "blank-line" and len(look.documents) <= look.num_texts and sentences > 200:
        return f"a document has about {sentences:,.0f} sentences. If each line is a document, give --text-layout line"
    return ""


def _starts(look: Look, config: TokenizeConfig) -> str:
    """An expression for the beginning of documents that is never found."""
    if look.read.document_start is None or not look.documents or len(look.documents) > look.num_texts:
        return ""
    sentences = float(np.mean(look.num_sentences))
    if sentences < FEW_DOCUMENTS:
        return ""
    return (
        f"each file gives one document, of about {sentences:,.0f} sentences: is --document-start "
        f"{look.read.document_start!r} found in any record but the first?"
    )


def _pairs(look: Look) -> list[tuple[str, int]]:
    return list(zip(look.texts, look.num_sentences.tolist(), strict=True))


def _casing(look: Look, config: TokenizeConfig) -> str:
    """Lower-cased text for a cased model."""
    if config.do_lower_case is not False:  # also None: of a tokenizer with another normalizer
        return ""
    text = "".join(look.texts)
    small, capital = sum(map(str.islower, text)), sum(map(str.isupper, text))
    if small < 1000 or capital > MOST_CAPITALS * small:
        return ""
    return (
        "the text has no capitals, so a cased vocabulary is of no use. Use an uncased vocabulary, and leave out "
        "--no-do-lower-case"
    )


def _encoding(look: Look, config: TokenizeConfig) -> str:
    replaced = sum(document.num_replaced for _, document in look.documents)
    if replaced <= 0.01 * look.num_text_bytes:
        return ""
    read_as = look.sources[0].encoding or "utf-8"
    return f"{replaced:,} bytes are not {read_as}: name the encoding of the files with --encoding"


def _markup(look: Look, config: TokenizeConfig) -> str:
    if look.has_layouts and any(map(_WIKIEXTRACTOR.match, look.texts)):
        return "the text has the tags of WikiExtractor's output: give --format wikiextractor"
    tags = _share(look, [bool(_TAG.search(text)) for text in look.texts])
    if tags >= 0.2:
        where = "give --format html" if look.has_layouts else "extract their text first, for example with resiliparse"
        return f"{tags:.0%} of the documents hold HTML tags: {where}"
    entities = _share(look, [bool(_ENTITY.search(text)) for text in look.texts])
    if entities >= 0.1 and not look.clean.fix_text:
        return f"{entities:.0%} of the documents hold HTML entities such as &amp;: give --fix-text"
    return ""


def _gutenberg(look: Look, config: TokenizeConfig) -> str:
    found = sum(bool(_GUTENBERG.search(text)) for text in look.texts)
    if not found or look.read.strip_gutenberg:
        return ""
    return f"{counted(found, 'document')} hold the licence of Project Gutenberg: give --strip-gutenberg"


def _language(look: Look, config: TokenizeConfig) -> str:
    for script, share in look.scripts.items():
        locale = _SENTENCE_LOCALES.get(script)
        if locale and share >= 0.1 and not config.sentences.startswith("icu"):
            return f"{share:.0%} of the words are {script}: give --sentences icu:{locale}"
    return ""


def _unknown(look: Look, config: TokenizeConfig) -> str:
    share = look.num_unknown / max(1, look.num_tokens)
    if share < MOST_UNKNOWN:
        return ""
    return f"{share:.1%} of the tokens are [UNK]: use a vocabulary of this language (bertloom build-vocab makes one)"


CHECKS: list[Check] = [
    _rejects,
    _nothing,
    _damage,
    _wikitext,
    _columns,
    _lines,
    _sentences,
    _headings,
    _starts,
    _casing,
    _encoding,
    _markup,
    _gutenberg,
    _language,
    _unknown,
]
