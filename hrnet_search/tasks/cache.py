"""Prepared data: made once, kept under the user's cache folder, memory-mapped by every trial."""

import hashlib
import json
import os
import shutil
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


def cache_folder() -> Path:
    """`$HRNET_SEARCH_CACHE`, or the platform's cache folder for this user."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given or platformdirs.user_cache_dir("hrnet-search")).absolute()


def cached(identity: Mapping[str, Any], make: Callable[[], Mapping[str, np.ndarray]]) -> Prepared:
    """The arrays that `identity` stands for, made by `make` if they are not there yet.

    Args:
        identity: Everything the arrays depend on, as JSON values.
        make: Returns the arrays by name.

    Raises:
        InputError: The cache folder cannot be written to.
    """
    text = json.dumps(identity, sort_keys=True)
    folder = cache_folder() / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not (folder / CONTENT).exists():
        arrays = make()
        try:
            _store(folder, identity, arrays)
        except OSError as error:
            rule = f"the cache folder cannot be written to ({error}); set {CACHE_VARIABLE}"
            raise InputError(rule, value=str(folder.parent)) from None
    return Prepared(folder, read_json(folder / CONTENT)["checksum"])


def _store(folder: Path, identity: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
    try:
        digest = hashlib.sha256()
        for name, array in sorted(arrays.items()):
            digest.update(np.ascontiguousarray(array).data)
            with open(temporary / f"{name}.npy", "wb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        content = {"checksum": digest.hexdigest()[:16], "identity": identity}
        write_json(temporary / CONTENT, content)
        if folder.is_dir() and not (folder / CONTENT).exists():
            shutil.rmtree(folder)  # something has cleaned up in it
        if not folder.is_dir():  # another study may have made the same data meanwhile
            os.rename(temporary, folder)
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
