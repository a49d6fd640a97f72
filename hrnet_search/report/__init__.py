"""The report of a run: one offline page, and its tables as Markdown and CSV."""

from .page import headline, write_fidelity, write_report

__all__ = ["headline", "write_fidelity", "write_report"]
