"""Beam counters, which the pages of Dataflow, Flink and Spark show while a job runs.

A stage counts once per element that it processes, not per document. The numbers that must add up travel as data: a runner
may count a retried bundle twice.
"""

from apache_beam.metrics import Metrics

NAMESPACE = "bertloom"


def increment(name: str, number: int) -> None:
    """Add to a counter. Outside of a Beam worker this does nothing."""
    Metrics.counter(NAMESPACE, name).inc(number)
