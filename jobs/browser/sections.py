"""The list of pages: one line for each. A page is one file in `data_set_pages/` or `run_pages/`, with its template."""

from jobs.browser.data_set_pages.charts import CHARTS
from jobs.browser.data_set_pages.document import DOCUMENTS
from jobs.browser.data_set_pages.duplicates import DUPLICATES
from jobs.browser.data_set_pages.examples import EXAMPLES
from jobs.browser.data_set_pages.rejects import REJECTS
from jobs.browser.run_pages.attention import ATTENTION
from jobs.browser.run_pages.curves import CURVES
from jobs.browser.run_pages.fill_mask import FILL_MASK
from jobs.browser.run_pages.overview import OVERVIEW
from jobs.browser.run_pages.steps import BAD, STEPS
from jobs.browser.section import Section

SECTIONS: tuple[Section, ...] = (
    EXAMPLES,
    DOCUMENTS,
    REJECTS,
    DUPLICATES,
    CHARTS,
    OVERVIEW,
    CURVES,
    STEPS,
    BAD,
    FILL_MASK,
    ATTENTION,
)
"""In the order of the navigation. The first of a kind is where the data set or run opens."""
