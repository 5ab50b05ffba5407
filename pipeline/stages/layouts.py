"""Advice about --text-layout, from the numbers of documents and sentences in the plain-text files."""

from collections.abc import Iterable

from bertloom.counts import counted
from pipeline.inputs.sources import ReadConfig
from pipeline.tokens import PartRecord

MANY_DOCUMENTS, FEW_SENTENCES, SEVERAL_FILES = 20, 10, 5
"""With at least this number of documents per file, fewer than this number of sentences per document, and at least this
number of files, each file is probably one document."""
MANY_SENTENCES = 20


def layout_advice(parts: Iterable[PartRecord], config: ReadConfig) -> str:
    """Return which layout to try if the plain-text files seem to have another layout than the given one, otherwise ""."""
    num_files = documents = sentences = 0
    for part in parts:
        num_files += part.num_texts
        documents += part.num_text_documents
        sentences += part.num_text_sentences
    given = f"{counted(num_files, 'text file')} gave {counted(documents, 'document')} of "
    given += f"{sentences / max(1, documents):.1f} sentences on average"
    is_cut = documents >= MANY_DOCUMENTS * num_files and sentences < FEW_SENTENCES * documents
    if config.text_layout != "file" and is_cut and num_files >= SEVERAL_FILES:
        return f"{given}: if each file is one document, give --text-layout file"
    if config.text_layout == "blank-line" and 0 < documents <= num_files and sentences > MANY_SENTENCES * documents:
        return f"{given}: if each line is a document, give --text-layout line"
    return ""
