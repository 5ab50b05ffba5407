"""A small vocabulary, written out, and strategies for text that hurts; for tests of the tokenizing half."""

from hypothesis import strategies as st

from pipeline.vocabulary import SPECIAL_WORDS, Vocabulary

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789éüßçÉαβσςκирабا한글ｆ"
_MARKS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~。！？，、；：“”‘’「」『』（）《》—…·¿¡«»"
_CJK = "的一是不了在人有我他这中大来上文字说你好走吧然后离开话言語体"
_PIECES = "un the cat sat able ing he she asked why went home No Mr Dr etc mask MASK 10 20 über naïve Ünï".split()
_ENDS = "able ing ed s ly tion 00 é".split()

VOCABULARY = Vocabulary(
    tuple(
        dict.fromkeys(
            [
                *SPECIAL_WORDS,
                *(f"[unused{i}]" for i in range(4)),
                *_LETTERS,
                *(f"##{c}" for c in _LETTERS),
                *_MARKS,
                *_CJK,
                *_PIECES,
                *(f"##{end}" for end in _ENDS),
            ]
        )
    )
)

ANY_CHARACTER = st.characters(exclude_categories=["Cs"])
ODD_PIECES = [
    "[MASK]",
    "[CLS]",
    "[unused1]",
    "##ing",
    "don't",
    "U.S.",
    "3.5",
    "naïve",
    "NAÏVE",
    "I\u0307",
    "İ",
    "ß",
    "ẞ",
    "ΣΑΣ",
    "e\u0301",
    "\u0301",
    "a\u0338\u0301",
    "한글",
    "\u1112\u1161\u11ab",
    "中文",
    "说：",
    "“走吧。”",
    "ｆｕｌｌ",
    "ﬁ",
    "𠀀",
    "豈",
    "😀",
    "👩\u200d👧",
    "\u200b",
    "\ufeff",
    "\u00ad",
    "\u2028",
    "\u0085",
    "\u00a0",
    "\u3000",
    "\x00",
    "\x1f",
    "\x7f",
    "\x0b",
    "\x0c",
    "a\x00b",
    "\u0903",
    "กำ",
    "\ufffd",
    "\U0010ffff",
    "x" * 99,
    "y" * 100,
    "z" * 101,
    "é" * 101,
    "un" * 300,
    "…",
    "—",
    "--",
    "'",
    '"',
    ".",
    "?",
    " ",
    " ",
    "\n",
    "\t",
    "\r",
    "the",
    "cat",
    "un",
    "unable",
]
ODD = st.sampled_from(ODD_PIECES)
ODD_TEXT = st.lists(ODD | ANY_CHARACTER | st.text(ANY_CHARACTER, max_size=12), max_size=20).map("".join)
