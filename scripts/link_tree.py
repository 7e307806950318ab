"""Make `.types/irstd`, a tree of links in the shape of the installed package.

setup.cfg maps the top-level folders onto one package through an import hook, which type checkers
and import-linter cannot follow. With `.types` on the path they (and pytest) see ordinary folders.
"""

import os
from pathlib import Path

FOLDERS = ("compile", "calibration", "runtime", "benchmarks")


def make_tree(root: Path) -> Path:
    """Make or mend the tree of the repository at `root` and return it."""
    tree = root / ".types" / "irstd"
    tree.mkdir(parents=True, exist_ok=True)
    wanted = {path.name: path for path in (root / "sdk").iterdir() if path.name != "__pycache__"}
    wanted |= {name: root / name for name in FOLDERS}
    for link in tree.iterdir():
        if link.is_symlink() and link.name not in wanted:
            link.unlink()
    for name, path in wanted.items():
        link, target = tree / name, os.path.relpath(path, tree)
        if not link.is_symlink() or os.readlink(link) != target:
            # Renamed into place, so that a process that reads the tree never misses a module.
            fresh = tree / f".{name}.{os.getpid()}"
            fresh.symlink_to(target)
            fresh.replace(link)
    return tree


if __name__ == "__main__":
    make_tree(Path(__file__).resolve().parent.parent)
