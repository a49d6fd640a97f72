"""The report of a run, or of several: one offline page, and its tables as Markdown and CSV."""

from .page import headline, write_fidelity, write_report, write_studies
from .pictures import write_pictures

__all__ = ["headline", "write_fidelity", "write_pictures", "write_report", "write_studies"]
