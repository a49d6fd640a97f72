"""The report of a run, or of several: one offline page, and its tables as Markdown and CSV."""

from .page import headline, write_fidelity, write_report, write_studies

__all__ = ["headline", "write_fidelity", "write_report", "write_studies"]
