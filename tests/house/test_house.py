"""The house itself: names, docs and make targets stay what they claim to be."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"agent", "cli", "cluster", "datapath", "hubble", "lab", "palomar", "relay", "ui"}
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_wheel_packages_are_exactly_the_storeys() -> None:
    """A new top-level name is a decision: it is added here and in docs/architecture.md."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(wheel) == PACKAGES | {"proto/palomar_pb"}
    contracted = set(project["tool"]["importlinter"]["root_packages"])
    assert contracted == PACKAGES | {"palomar_pb"}


def test_every_package_says_what_it_is() -> None:
    """Each package opens with a docstring."""
    for package in PACKAGES:
        text = (ROOT / package / "__init__.py").read_text()
        assert text.startswith('"""'), package


def test_no_file_has_a_name_that_says_nothing() -> None:
    """No Python file is a drawer for leftovers."""
    tracked = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    bad = [path for path in tracked if path.stem in {"util", "utils", "helper", "helpers", "misc", "common"}]
    assert not bad


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_docs_name_exist(doc: Path) -> None:
    """A link or a `path/file.py` in a doc leads somewhere."""
    text = doc.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    missing = [link for link in links if not (doc.parent / link).exists()]
    folders = "|".join(sorted(PACKAGES | {"bpf", "proto", "tests", "docs"}))
    named = re.findall(rf"`((?:{folders})/[\w/.-]+\.(?:py|c|h|proto|md|yaml))`", text)
    missing += [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_readme_names_only_make_targets_that_exist() -> None:
    """Every `make x` of the README is a target."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert named <= targets


def test_setup_names_each_package_once() -> None:
    """No Debian package is listed twice, and each has its reason."""
    rows = re.findall(r"^  ([a-z0-9.+-]+) +# (.+)$", (ROOT / "setup.sh").read_text(), re.MULTILINE)
    names = [name for name, _ in rows]
    assert len(names) > 10
    assert len(names) == len(set(names))
