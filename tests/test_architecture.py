"""Rooms import only the rooms that docs/ARCHITECTURE.md allows; the cache imports no torch."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

TABLE = re.findall(
    r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$",
    (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)
# The rooms that each room may import, in the order of the data flow.
ROOMS = {room: set(re.findall(r"\w+", used)) for room, used in TABLE}
FORBIDDEN_IN_CACHE = {"torch", "transformers", "pipeline", "datasets", "accelerate"}
MODULES = sorted([*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "cache").rglob("*.py")])


def imports(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules.add(str(node.module))
    return modules


def room_of(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] == "cache":
        return "cache"
    return parts[1] if parts[0] == "pipeline" and len(parts) > 1 else None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_data_flow(path: Path) -> None:
    place = path.relative_to(ROOT)
    if place.parts[0] == "cache":
        assert not {name.split(".")[0] for name in imports(path)} & FORBIDDEN_IN_CACHE
        return
    if place == Path("pipeline/__init__.py"):
        return
    room = place.parts[1].removesuffix(".py")
    assert room in ROOMS, f"docs/ARCHITECTURE.md does not name {room}"
    used = {room_of(module) for module in imports(path)} - {None, room}
    assert used <= ROOMS[room], f"{place} imports {sorted(map(str, used - ROOMS[room]))}"


def test_the_table_lists_exactly_the_rooms_and_imports_of_the_code() -> None:
    used: dict[str, set[str]] = {room: set() for room in ROOMS}
    for path in MODULES:
        place = path.relative_to(ROOT)
        if (place.parts[0] == "pipeline" and place.name != "__init__.py") or len(place.parts) > 2:
            room = "cache" if place.parts[0] == "cache" else place.parts[1].removesuffix(".py")
            used[room] |= {
                str(imported)
                for module in imports(path)
                if (imported := room_of(module)) not in (None, room)
            }
    assert used == ROOMS


def test_rooms_have_no_import_cycle() -> None:
    order = list(ROOMS)
    edges = [(room, used) for room, rooms in ROOMS.items() for used in rooms - {"cache"}]
    seen: set[str] = set()
    while left := [room for room in order if room not in seen]:
        ready = [
            room for room in left if all(used in seen for owner, used in edges if owner == room)
        ]
        assert ready, f"import cycle among {left}"
        seen |= set(ready)


def test_every_folder_is_an_installed_package() -> None:
    folders = {path.parent for path in MODULES}
    assert {folder for folder in folders if not (folder / "__init__.py").is_file()} == set()


def test_files_are_short_and_named_for_one_job() -> None:
    assert [path for path in MODULES if len(path.read_text().splitlines()) > 300] == []
    assert [
        path for path in MODULES if path.stem.startswith(("util", "helper", "misc", "common"))
    ] == []
