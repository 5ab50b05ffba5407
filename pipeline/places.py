"""`Places`: the folders and files of one preprocessing job."""

from dataclasses import dataclass, field, replace

from bertloom import storage


@dataclass(frozen=True)
class Places:
    """The folders and files of one preprocessing job."""

    dataset: str
    """The data set: `--out`."""
    work: str
    """Token parts: `--work-dir`. Jobs over the same texts may share it."""
    repeated_lines: str = ""
    """Digest of the lines that are left out of all texts. They decide the content of parts, so it names their folder."""
    job: str = ""
    """Folder of the job, where the data set is a folder in it: in jobs that make a data set for each source."""
    source: str = ""
    """Name of the source of the data set, in such jobs."""
    start: str = field(default="", compare=False)
    """A name that no other start of the job has, for what only this start needs."""

    @property
    def parts(self) -> str:
        """Folder of the token parts."""
        return storage.join(self.work, "parts", *filter(None, [self.repeated_lines]))

    @property
    def lines(self) -> str:
        """Folder of the lists of line hashes."""
        return storage.join(self.work, "lines")

    @property
    def near_duplicate_search(self) -> str:
        """Folder of the sketches and candidate pairs of the search for near duplicates."""
        return storage.join(self.parts, "near")

    @property
    def scratch(self) -> str:
        """Folder of the files that belong to this data set alone and are removed when it is complete."""
        return storage.join(self.job or self.dataset, ".work")

    def of_source(self, name: str) -> "Places":
        """Return the places of the data set of a source."""
        return replace(self, dataset=storage.join(self.dataset, name), job=self.dataset, source=name)

    def vocabulary(self, sha256: str) -> str:
        """Folder of the job's copy of the vocabulary. Workers read it, because Beam would serialize it with every stage."""
        return storage.join(self.scratch, f"vocabulary-{sha256}")

    def excluded(self, sha256: str) -> str:
        """The file with the runs of words of the test sets of --exclude. Workers read it."""
        return storage.join(self.scratch, f"excluded-{sha256}")

    @property
    def claim(self) -> str:
        """The file that names the job to which the output belongs."""
        return storage.join(self.scratch, "job.json")

    @property
    def reading_notes(self) -> str:
        """Folder in which workers note what they read."""
        return storage.join(self.scratch, "reading")

    @property
    def work_log(self) -> str:
        """Folder in which workers log what they have finished. Workers of an earlier start may still write to another."""
        return storage.join(self.scratch, "work-log", *filter(None, [self.start]))

    @property
    def plan(self) -> str:
        """The plan, written by the plan stage."""
        return storage.join(self.scratch, f"plan-{self.source}.json" if self.source else "plan.json")

    @property
    def over_budget(self) -> str:
        """Folder of the lists of documents that are over the budgets of sources."""
        return storage.join(self.scratch, "over-budget")

    @property
    def sample(self) -> str:
        """The file with the share that --sample takes."""
        return storage.join(self.scratch, "sample.json")

    @property
    def held_out(self) -> str:
        """The file that lists the documents of --validation-input."""
        return storage.join(self.scratch, "held-out")

    @property
    def extended(self) -> str:
        """The file that describes the data sets of --extend."""
        return storage.join(self.scratch, "extended")

    @property
    def known(self) -> str:
        """Folder of the files of the search for documents that these data sets have."""
        return storage.join(self.scratch, "known")

    @property
    def known_documents(self) -> str:
        """The file that lists the documents that were found."""
        return storage.join(self.scratch, "known-documents")

    @property
    def known_near_duplicates(self) -> str:
        """The file that lists documents that resemble one of these data sets."""
        return storage.join(self.scratch, "known-near-duplicates")

    @property
    def near_duplicates(self) -> str:
        """The file that lists the near duplicates found."""
        return storage.join(self.scratch, "near-duplicates")

    @property
    def records(self) -> str:
        """Folder of one record per finished bucket."""
        return storage.join(self.scratch, "weave")

    @property
    def manifest(self) -> str:
        """manifest.json of the data set."""
        return storage.join(self.dataset, "manifest.json")
