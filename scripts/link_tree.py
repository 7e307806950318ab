"""Make `.types/irstd`, a tree of links in the shape of the installed package.

setup.cfg maps the top-level folders onto one package through an import hook, which type checkers
and import-linter cannot follow. With `.types` on the path they (and pytest) see ordinary folders.
"""

from pathlib import Path

FOLDERS = ("compile", "calibration", "runtime", "benchmarks")


def main() -> None:
    root = Path(__file__).resolve().parent.parent
    tree = root / ".types" / "irstd"
    tree.mkdir(parents=True, exist_ok=True)
    wanted = {path.name: path for path in (root / "sdk").iterdir() if path.name != "__pycache__"}
    wanted |= {name: root / name for name in FOLDERS}
    for link in tree.iterdir():
        if link.is_symlink() and link.name not in wanted:
            link.unlink()
    for name, path in wanted.items():
        link = tree / name
        if not link.is_symlink():
            link.symlink_to(path)


if __name__ == "__main__":
    main()
