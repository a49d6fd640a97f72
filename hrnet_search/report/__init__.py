"""The report of a run: one offline page, and its tables as Markdown and CSV."""

from .page import write_report

__all__ = ["write_report"]
