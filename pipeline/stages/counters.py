"""Beam counters, which the page of an engine shows while a job runs.

A counter's namespace is its stage, and its name says what goes in, comes out or is dropped: bertloom.tokenize,
documents-rejected. A stage counts once per element that it processes, not per document. The numbers that must add up travel
as data: a runner may count a retried bundle twice.
"""

from collections import Counter
from collections.abc import Iterable

from apache_beam.metrics import Metrics
from apache_beam.runners.runner import PipelineResult

from pipeline.stages.work_log import STAGES

NAMESPACE = "bertloom."


def increment(stage: str, **numbers: int) -> None:
    """Add to counters of a stage. Outside of a Beam worker this does nothing.

    >>> increment("tokenize", documents_in=12, documents_rejected=1)
    """
    assert stage in STAGES
    for name, number in numbers.items():
        Metrics.counter(NAMESPACE + stage.replace(" ", "-"), name.replace("_", "-")).inc(number)


def counters_of(results: Iterable[PipelineResult]) -> dict[str, Counter[str]]:
    """Return stage -> counters, in the order of the stages, added up over finished jobs.

    The dictionary is empty if the runner keeps no counters, as Dask.
    """
    found: dict[str, Counter[str]] = {}
    for result in results:
        try:
            counters = result.metrics().query()["counters"]
        except NotImplementedError:
            continue
        for counter in counters:
            name = counter.key.metric
            if name.namespace.startswith(NAMESPACE):
                of_stage = found.setdefault(name.namespace.removeprefix(NAMESPACE).replace("-", " "), Counter())
                of_stage[name.name] += counter.result or 0
    return {stage: found[stage] for stage in STAGES if stage in found}
