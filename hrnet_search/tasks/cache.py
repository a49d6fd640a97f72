"""Prepared data: made once, kept under the user's cache folder, memory-mapped by every trial."""

import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from ..errors import InputError
from ..files import read_json, sync_folder, write_json

CACHE_VARIABLE = "HRNET_SEARCH_CACHE"
CONTENT = "content.json"  # written last; a folder without it is not whole
PARTIAL = ".partial"  # folders being filled: .partial-HOST-PROCESS-RANDOM


@dataclass(frozen=True)
class Prepared:
    """A folder of arrays.

    Args:
        folder: Where they are.
        checksum: Hash of their contents, for the record of a trial.
    """

    folder: Path
    checksum: str

    def array(self, name: str) -> np.ndarray:
        """An array of the folder, mapped read-only: all trials share one copy in memory."""
        return np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    def pixels(self, name: str) -> np.ndarray:
        """What was appended under that name, flat uint8, mapped read-only."""
        return np.memmap(self.folder / f"{name}.bin", dtype=np.uint8, mode="r")

    def has(self, name: str) -> bool:
        """Whether pixels were appended under that name."""
        return (self.folder / f"{name}.bin").exists()

    def json(self, name: str) -> Any:
        return read_json(self.folder / f"{name}.json")


class Writer:
    """Fills the folder of `Prepared`; nothing large has to fit into memory.

    Args:
        folder: Where to write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._digest = hashlib.sha256()

    def array(self, name: str, array: np.ndarray, *, counts: bool = True) -> None:
        """Keep an array, which counts in the checksum unless it only says where things are."""
        if counts:
            self.note(np.ascontiguousarray(array).data)
        with open(self.folder / f"{name}.npy", "wb") as file:
            np.save(file, array, allow_pickle=False)

    def append(self, name: str, pixels: np.ndarray) -> None:
        """Add uint8 values behind those that were appended under the same name."""
        data = np.ascontiguousarray(pixels, dtype=np.uint8).data
        self.note(data)
        with open(self.folder / f"{name}.bin", "ab") as file:
            file.write(data)

    def json(self, name: str, value: Any, *, counts: bool = True) -> None:
        """Keep JSON values, which count likewise."""
        if counts:
            self.note(json.dumps(value, sort_keys=True).encode())
        write_json(self.folder / f"{name}.json", value, indent=None)

    def note(self, data: Any) -> None:
        """Let bytes that are kept elsewhere count in the checksum."""
        self._digest.update(data)

    @property
    def checksum(self) -> str:
        return self._digest.hexdigest()[:16]


def cached(identity: Mapping[str, Any], make: Callable[[Writer], None]) -> Prepared:
    """The data that `identity` stands for, made by `make` if it is not there yet.

    Args:
        identity: Everything the data depends on, as JSON values.
        make: Writes the data.

    Raises:
        InputError: The cache folder cannot be written to, or `make` refuses the data.
    """
    text = json.dumps(identity, sort_keys=True)
    folder = cache_folder() / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not (folder / CONTENT).exists():
        try:
            _make(folder, identity, make)
        except OSError as error:
            rule = (
                f"the cache folder cannot be written to ({error}); set {CACHE_VARIABLE}, or "
                "data.cache_gib=0 to keep no decoded images"
            )
            raise InputError(rule, value=str(folder.parent)) from None
    return Prepared(folder, read_json(folder / CONTENT)["checksum"])


def cache_folder() -> Path:
    """`$HRNET_SEARCH_CACHE`, or the platform's cache folder for this user."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given or platformdirs.user_cache_dir("hrnet-search")).absolute()


def _make(folder: Path, identity: Mapping[str, Any], make: Callable[[Writer], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder.parent)
    prefix = f"{PARTIAL}-{socket.gethostname()}-{os.getpid()}-"
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix))
    try:
        writer = Writer(temporary)
        make(writer)
        for file in temporary.iterdir():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        content = {"checksum": writer.checksum, "identity": identity}
        write_json(temporary / CONTENT, content)
        if folder.is_dir() and not (folder / CONTENT).exists():
            shutil.rmtree(folder)  # something has cleaned up in it
        if not folder.is_dir():  # another study may have made the same data meanwhile
            os.rename(temporary, folder)
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove what processes of this machine have left that were killed."""
    for partial in folder.glob(f"{PARTIAL}-{socket.gethostname()}-*-*"):
        process = partial.name.rsplit("-", 2)[1]
        if process.isdecimal() and not _runs(int(process)):
            shutil.rmtree(partial, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # asks only
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True  # another user's, or no process number
    return True
