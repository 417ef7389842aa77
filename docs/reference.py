"""The API reference: one page a room, its modules in the order of their names."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def pages() -> dict[str, str]:
    """The page of every room by its path in the site."""
    rooms = [path for package in ("bilevel", "physics") for path in sorted((ROOT / package).iterdir()) if _shown(path)]
    index = "# API reference\n\n" + "".join(f"- [`{_name(room)}`]({_name(room)}.md): {_line(room)}\n" for room in rooms)
    return {"api/index.md": index, **{f"api/{_name(room)}.md": _page(room) for room in rooms}}


def _shown(path: Path) -> bool:
    return (path.suffix == ".py" or (path / "__init__.py").exists()) and not path.name.startswith("_")


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _line(room: Path) -> str:
    source = room / "__init__.py" if room.is_dir() else room
    described = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8")))
    return (described or "").partition("\n")[0]


def _page(room: Path) -> str:
    modules = (
        [room]
        if room.is_file()
        else [m for m in sorted(room.rglob("*.py")) if not m.name.startswith("_") and "templates" not in m.parts]
    )
    return f"# {_name(room)}\n\n{_line(room)}\n\n" + "".join(f"::: {_name(module)}\n\n" for module in modules)
