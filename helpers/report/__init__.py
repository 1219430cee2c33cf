"""A report on trainings that were kept: one page for the browser, one PDF, from the runs' folders alone.

What stands in it is a list of blocks (:mod:`helpers.report.blocks`), written by
:mod:`helpers.report.content` and set twice: as HTML by :mod:`helpers.report.page`, as PDF by
:mod:`helpers.report.sheet`.
"""

from helpers.report.content import blocks_of
from helpers.report.page import as_html
from helpers.report.reading import Kept, read
from helpers.report.sheet import as_pdf

__all__ = ["Kept", "as_html", "as_pdf", "blocks_of", "read"]
