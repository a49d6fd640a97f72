"""Networks of a study as folders that stand alone; see docs/use-the-winner.md."""

from .folder import check_again, export_winner
from .formats import parse_formats
from .winner import choose_winner, front_trials

__all__ = ["check_again", "choose_winner", "export_winner", "front_trials", "parse_formats"]
