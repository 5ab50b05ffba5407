"""The scenarios: where a training stops, and with what it resumes."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a set."""

    first: int
    """Number of the first row."""
    size: int


SETS = {"even": Rows(first=0, size=1_152), "odd": Rows(first=2_000, size=1_210), "second": Rows(first=5_000, size=700)}
"""Every number of ranks and workers divides the batches and rows of `even`; `odd` has a smaller last batch. A mixture is
`even` and `second`."""
BATCH = 24
STOP = 12
"""Steps before the first stop. 2 and 3 divide it, because LanceDB has a state only where all workers had a turn."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A training from one start to the next stop."""

    num_ranks: int = 1
    num_workers: int = 0
    micro_batch: int = BATCH
    stop: int | None = None
    """Number of steps after which it stops, counted over all parts; None at the end."""
    kill: int | None = None
    """Number of steps after which SIGKILL ends it; it resumes with the checkpoint of `stop`."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A training in parts, which is compared with one without a stop that has the first part's setting."""

    key: str
    title: str
    parts: tuple[Part, ...]
    global_batch: int = BATCH
    num_epochs: int = 1
    max_steps: int | None = None
    """Steps at which it ends before the end of the epoch."""
    sets: tuple[str, ...] = ("even",)
    """Sets that are read, two for a mixture."""

    @property
    def uninterrupted(self) -> Part:
        """The setting of the training without a stop."""
        return replace(self.parts[0], stop=None, kill=None)


def by_ranks(global_batch: int) -> tuple[Part, ...]:
    """Return a training on 1, then 2, then 3 ranks. Each rank takes its share in one micro-batch."""
    stops = (STOP, 2 * STOP, None)
    return tuple(
        Part(num_ranks=ranks, micro_batch=-(-global_batch // ranks), stop=stop) for ranks, stop in zip((1, 2, 3), stops)
    )


def over_the_end(name: str) -> tuple[Part, ...]:
    """Return a training that stops shortly before and after the end of the first epoch of a set."""
    steps = -(-SETS[name].size // BATCH)
    return Part(stop=steps - 3), Part(stop=steps + 5), Part()


TWO, THREE = Part(num_workers=2), Part(num_workers=3)
MIXTURE = ("even", "second")
SCENARIOS = (
    Scenario(key="a", title="(a) unchanged, 2 workers", parts=(replace(TWO, stop=STOP), TWO)),
    Scenario(key="b", title="(b) 2 workers, then 3", parts=(replace(TWO, stop=STOP), THREE)),
    Scenario(key="b-odd", title="(b) the same, 1,210 rows", parts=(replace(TWO, stop=STOP), THREE), sets=("odd",)),
    Scenario(key="c", title="(c) 1, 2, then 3 ranks; batches of 24", parts=by_ranks(BATCH)),
    Scenario(key="c-32", title="(c) the same, batches of 32", parts=by_ranks(32), global_batch=32),
    Scenario(key="d", title="(d) micro-batches of 24, then 8", parts=(Part(stop=STOP), Part(micro_batch=8))),
    Scenario(key="e", title="(e) kill -9, 2 workers", parts=(replace(TWO, stop=STOP, kill=STOP + 3), TWO)),
    Scenario(key="f", title="(f) over the end of an epoch", parts=over_the_end("even"), num_epochs=2),
    Scenario(
        key="f-odd",
        title="(f) the same, 1,210 rows",
        parts=over_the_end("odd"),
        num_epochs=2,
        sets=("odd",),
    ),
    Scenario(key="g", title="(g) mixture, unchanged", parts=(Part(stop=STOP), Part()), sets=MIXTURE, max_steps=40),
    Scenario(key="g-ranks", title="(g) mixture; 1, 2, then 3 ranks", parts=by_ranks(BATCH), sets=MIXTURE, max_steps=40),
)
