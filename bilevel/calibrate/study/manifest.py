"""What runs wrote into a folder, so that nothing else is ever removed from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from bilevel.calibrate.study.files import write_atomically

_NAME = ".bilevel.json"


class Manifest:
    """The files of earlier runs in a folder, by their paths in it; a path that ends in / is a whole folder of ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            listed = json.loads((folder / _NAME).read_text(encoding="utf-8"))["files"]
            self.files = [str(name) for name in listed]
        except (OSError, ValueError, KeyError, TypeError):
            self.files = []

    def add(self, names: Iterable[str]) -> None:
        """List further files, before or after they are written."""
        self.files = list(dict.fromkeys([*self.files, *names]))
        write_atomically(self.folder / _NAME, json.dumps({"files": self.files}, indent=1) + "\n")

    def remove_files(self) -> None:
        """Remove what is listed, and folders that are empty then."""
        home = self.folder.resolve()
        for name in self.files:
            path = self.folder / name
            if not path.resolve().is_relative_to(home) or path.resolve() == home:
                continue  # a damaged list must not reach out of the folder
            if name.endswith("/"):
                if not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                continue
            path.unlink(missing_ok=True)
            for parent in path.parents:
                if parent == self.folder or not parent.is_dir() or any(parent.iterdir()):
                    break
                parent.rmdir()
        self.files = []
        (self.folder / _NAME).unlink(missing_ok=True)
