"""A bar for work that keeps a person waiting."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Advance = Callable[[int, int], None]  # told of pieces done, and of pieces in all


@contextmanager
def bar(console: "Console", title: str) -> Iterator[Advance]:
    """Gives what is called with pieces done and pieces in all.

    The bar appears with the first piece, and goes when the work is done; in a log there is none.
    """
    from rich.progress import Progress  # slow to import

    with Progress(console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(title, total=None, visible=False)
        yield lambda done, total: shown.update(task, completed=done, total=total, visible=True)
