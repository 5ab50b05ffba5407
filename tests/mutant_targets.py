"""All targets of mutants, by name: what the slow tests and the campaign use."""

from tests.bertloom import tokenizer_mutants
from tests.jobs import data_set_mutants, settings_mutants
from tests.model import model_mutants, row_mutants
from tests.mutants import Target
from tests.pipeline import input_mutants, text_mutants

TARGETS: dict[str, Target] = {
    f"{kind}-{name}": target
    for kind, listed in {
        "texts": text_mutants,
        "inputs": input_mutants,
        "rows": row_mutants,
        "tokenizers": tokenizer_mutants,
        "settings": settings_mutants,
        "data": data_set_mutants,
        "models": model_mutants,
    }.items()
    for name, target in listed.TARGETS.items()
}
