"""The report of a run: one offline page, and its tables as Markdown and CSV."""

from .page import write_fidelity, write_report

__all__ = ["write_fidelity", "write_report"]
