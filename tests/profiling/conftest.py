"""Figures of one thread."""

import pytest


@pytest.fixture(autouse=True)
def of_one_thread(one_thread: None) -> None:
    """Every test here."""
