"""An input format of your own: subtitles (.srt), a format that bertloom does not know.

    python examples/own_reader.py preprocess --input 'films/*.srt' --vocab vocab.txt --out DATASET

It is `bertloom` with one more format; `preview`, `build-vocab` and `explain` read it, too. Only this process knows the
format. To use it with several workers or on a cluster, make it a part of bertloom, which takes two steps:

1. Move this file, without the last function, to `pipeline/inputs/formats/subtitles.py`.
2. In `pipeline/inputs/formats/registry.py`, import SUBTITLES and add it to FORMATS.

A file is one document. The texts of a scene, that is, until nothing is said for four seconds, are one paragraph.
"""

import html
import re
import sys
from functools import partial

from pipeline.inputs.formats.format import Format
from pipeline.inputs.formats.whole_texts import read_mark_up

SCENE_GAP_SECONDS = 4.0

_TIME = r"(\d+):(\d\d):(\d\d)[,.](\d{1,3})"
_CUE = re.compile(rf"(?:^|\n)[ \t]*(?:\d+[ \t]*\n)?{_TIME}[ \t]*-->[ \t]*{_TIME}[^\n]*")
_MARK_UP = re.compile(r"</?[A-Za-z][^<>]*>|\{\\[^{}]*\}")  # <i>, </font>, {\an8}
_SPEAKER = re.compile(r"^\s*[-–—]\s*")


def text_of_subtitles(source: str) -> str:
    """Return the paragraphs of a file of subtitles, separated by blank lines.

    >>> text_of_subtitles("00:00:01,000 --> 00:00:03,000\\n<i>Where</i> to?\\n\\n00:00:09,000 --> 00:00:10,000\\n- Here.")
    'Where to?\\n\\nHere.'

    Raises:
        ValueError: the file has no time such as `00:00:01,000 --> 00:00:03,000`.
    """
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    cues = list(_CUE.finditer(source))
    if source.strip() and not cues:
        raise ValueError("no line is a time, such as 00:00:01,000 --> 00:00:03,000")
    paragraphs: list[list[str]] = []
    last_end = float("-inf")
    for cue, following in zip(cues, [*cues[1:], None]):
        lines = source[cue.end() : following.start() if following else len(source)].split("\n")
        lines = [_SPEAKER.sub("", html.unescape(_MARK_UP.sub("", line))).strip() for line in lines]
        if _seconds(*cue.groups()[:4]) - last_end >= SCENE_GAP_SECONDS:
            paragraphs.append([])
        paragraphs[-1] += [line for line in lines if line]
        last_end = _seconds(*cue.groups()[4:])
    return "\n\n".join("\n".join(lines) for lines in paragraphs if lines)


def _seconds(hours: str, minutes: str, seconds: str, fraction: str) -> float:
    return 3600 * int(hours) + 60 * int(minutes) + int(seconds) + float(f"0.{fraction}")


SUBTITLES = Format(
    name="subtitles",
    description="subtitles",
    endings=(".srt",),
    # It decodes the file, limits its size, and makes a reject of a file that `text_of_subtitles` refuses.
    read=partial(read_mark_up, text_of_subtitles),
    is_document=True,
    has_encodings=True,
)


def main() -> int:
    from jobs.cli import main as bertloom
    from pipeline.inputs.formats.registry import FORMATS

    FORMATS.append(SUBTITLES)
    return bertloom()


if __name__ == "__main__":
    sys.exit(main())
