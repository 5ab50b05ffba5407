"""`JobConfig`: everything that decides the bytes of a data set, apart from the texts."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.examples.configuration import ExamplesConfig
from pipeline.inputs.documents import TextConfig
from pipeline.inputs.named_inputs import NamedInput
from pipeline.inputs.sources import ReadConfig
from pipeline.options import check_types, compose, flat, option_names
from pipeline.places import Places
from pipeline.text.cleaning import CleanConfig
from pipeline.tokenizer import TokenizeConfig
from pipeline.vocabulary import SPECIAL_TOKENS


@dataclass(frozen=True)
class JobConfig:
    """Everything that decides the bytes of a data set, apart from the texts."""

    tokenize: TokenizeConfig
    examples: ExamplesConfig
    vocabulary_sha256: str
    """The vocabulary itself is in files (`Places.vocabulary`), so that a job is small when it goes to a worker."""
    special_tokens_sha256: str = ""
    """Of special_tokens_map.json, for a tokenizer that has one in a data set."""
    excluded_sha256: str = ""
    """Digest of the test sets of --exclude; their runs of words are in a file (`Places.excluded`)."""
    extends: tuple[str, ...] = ()
    """Digests of the manifests of the data sets that it extends."""
    inputs: tuple[NamedInput, ...] = ()
    """The tables of --inputs, in their order."""
    per_source: bool = False
    """Whether each of them has a data set of its own."""

    @classmethod
    def from_manifest(cls, manifest: dict[str, Any]) -> "JobConfig":
        """Return the configuration that a data set was made with."""
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in manifest["configuration"].items()}
        of_tokenize = option_names(TokenizeConfig)
        known = {*of_tokenize, *option_names(ExamplesConfig)}
        if differing := sorted(known ^ values.keys()):
            raise ValueError(
                f"the configuration in manifest.json lacks, or has in addition, the options {', '.join(differing)}: "
                f"expected those of this version of bertloom; preprocess the texts again"
            )
        check_types(TokenizeConfig, values, "the configuration in manifest.json")
        tokenize = compose(TokenizeConfig, **{name: values[name] for name in of_tokenize})
        return cls(
            tokenize,
            ExamplesConfig.of(values),
            manifest["vocabulary"]["sha256"],
            special_tokens_of(manifest),
            manifest.get("excluded", {}).get("sha256", ""),
            tuple(row["sha256"] for row in manifest.get("extends", ())),
            tuple(NamedInput.of_row(row, tokenize.text.clean) for row in manifest.get("sources", ())),
        )

    def of_input(self, number: int) -> "JobConfig":
        """Return the job for the files of a table of --inputs: with its cleaning. number: -1 for files of no table."""
        if number < 0:
            return self
        text = replace(self.tokenize.text, clean=self.inputs[number].clean)
        return replace(self, tokenize=replace(self.tokenize, text=text))

    def places_of(self, places: Places, number: int) -> Places:
        """Return the places of the data set of a source. number: -1 for the data set of all sources."""
        return places if number < 0 else places.of_source(self.inputs[number].name)

    @property
    def cleaning(self) -> tuple[CleanConfig, ...]:
        """How the texts of each table of --inputs are cleaned."""
        return tuple(one.clean for one in self.inputs)

    def text_config(self, row: dict[str, Any]) -> TextConfig:
        """Return how the documents of a file of a finished data set were read and cleaned. row: as in `read_config`."""
        clean = {one.name: one.clean for one in self.inputs}.get(str(row.get("source")), self.tokenize.text.clean)
        return TextConfig(read=self.read_config(row), clean=clean)

    def read_config(self, row: dict[str, Any]) -> ReadConfig:
        """Return how a file of a finished data set was read. row: of `inputs` in its manifest."""
        options = row.get("reading", {})
        name = f"the input {row['name']} in manifest.json"
        if not isinstance(options, dict) or options.keys() - option_names(ReadConfig):
            raise ValueError(
                f"{name} is read with {options!r}: expected options for reading; preprocess the texts again"
            )
        check_types(ReadConfig, options, name)
        return replace(self.tokenize.text.read, **options)

    def as_dict(self) -> dict[str, Any]:
        """Return every option in one table, as manifest.json records it."""
        values = {**flat(self.tokenize), **flat(self.examples)}
        values["max_predictions_per_seq"] = [self.examples.max_predictions(n) for n in self.examples.max_seq_length]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @property
    def vocabulary_digest(self) -> str:
        """Digest of the vocabulary and of its special tokens."""
        if not self.special_tokens_sha256:
            return self.vocabulary_sha256
        return hashlib.sha256(f"{self.vocabulary_sha256} {self.special_tokens_sha256}".encode()).hexdigest()

    @property
    def digest(self) -> str:
        key: list[Any] = [self.as_dict(), self.vocabulary_digest, *filter(None, [self.excluded_sha256, self.extends])]
        if self.inputs:
            key += [list(map(asdict, self.inputs)), self.per_source]
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def special_tokens_of(manifest: Mapping[str, Any]) -> str:
    """Return the sha256 of special_tokens_map.json in a manifest; empty where it has none."""
    found: str = manifest.get("files", {}).get(SPECIAL_TOKENS, "")
    return found
