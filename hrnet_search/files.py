"""Files that are whole or absent: written to a temporary name, flushed, then renamed."""

import contextlib
import errno
import fcntl
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import InputError

DISK_FULL = "the disk is full; free some space, then run the same command again"


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


def read_user_json(path: Path) -> Any:
    """What a JSON file says that somebody else has written.

    Raises:
        InputError: It cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", file=path) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not JSON ({error})", file=path) from None


def is_number(value: Any) -> bool:
    """Whether a value from JSON is a number that a float can hold."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # hundreds of digits
        return False


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


@contextlib.contextmanager
def scratch_folder(parent: Path, *, prefix: str) -> Iterator[Path]:
    """A folder in `parent` for what is not finished yet; it is gone at the end.

    Folders that killed processes have left there go first: a lock on each says whether its process
    lives. Where a file system has no locks they stay.

    Args:
        parent: Must exist.
        prefix: How the names of such folders begin, and of nothing else there.
    """
    for left in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            _remove_left(left)
    place, handle = _locked_folder(parent, prefix)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(handle)


def _remove_left(folder: Path) -> None:
    """Remove a scratch folder, unless its process holds it, which raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def _locked_folder(parent: Path, prefix: str) -> tuple[Path, int]:
    """A new folder, and a handle that locks it until it is closed or the process has died."""
    while True:
        place = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        # Another process may take it for one that was left, until it is locked.
        try:
            handle = os.open(place, os.O_RDONLY)
        except FileNotFoundError:
            continue
        with contextlib.suppress(OSError):  # of a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if place.exists():
            return place, handle
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


def is_disk_full(error: BaseException) -> bool:
    """Whether nothing is wrong but that: all goes on when there is space again.

    SQLite, and with it Optuna, and whatever reaches us through Ray, say so in a text.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    texts = ("database or disk is full", os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
    return any(text in str(error) for text in texts)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
