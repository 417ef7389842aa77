"""What the site is made of besides its pages: figures drawn by the pages' code, keys of studies, the API reference."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

import reference
import study_keys
from blocks import blocks, run


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures that are made, not written."""
    pages = {
        "studies/file.md": study_keys.file_page(),
        "studies/kinds.md": study_keys.kinds_page(),
        **reference.pages(),
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    for page in [*files.documentation_pages()]:
        if page.abs_src_path and "savefig(" in page.content_string:
            for picture in figures(Path(page.abs_src_path)):
                files.append(
                    File.generated(config, f"{Path(page.src_uri).parent / picture.name}", content=picture.read_bytes())
                )
    return files


def figures(page: Path) -> list[Path]:
    """Run a page's Python in an empty folder; the pictures that it leaves there."""
    folder, here = Path(tempfile.mkdtemp()), Path.cwd()
    namespace: dict[str, object] = {"__name__": "__main__"}
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            for block in blocks(page):
                if block.language == "python" and block.title is None:
                    run(block, page, namespace)
    finally:
        os.chdir(here)
    return sorted(folder.glob("*.png"))
