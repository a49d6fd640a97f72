"""Files that are whole or absent: written to a temporary name, flushed, then renamed."""

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from .errors import InputError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Put `content` at `path` so that a reader, or a power cut, never meets half of it."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """`value` as JSON; a number that JSON cannot say (NaN, infinity) is an error here."""
    write_atomic(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def read_json_lines(path: Path) -> list[Any]:
    """The records of a file that is appended to; a last line cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def require_writable(folder: Path, *, key: str) -> None:
    """Check that files can be made below `folder`, leaving nothing behind.

    Raises:
        InputError: They cannot; `key` names the option the folder came from.
    """
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        if not existing.is_dir():
            raise NotADirectoryError(f"{existing} is not a folder")
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise InputError(f"cannot be written to ({error})", key=key, value=str(folder)) from None


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
