"""Generate the Python modules of `palomar_pb` from the .proto files that lie beside them.

Run by `make proto`; `--check` writes nothing and fails when a committed module is not what the
.proto files say now (part of `make check`). Not imported by anything.

The descriptors keep their public file names (`flow/flow.proto`), which reflection shows; only the
imports between generated Python modules are rewritten, so that they live below `palomar_pb`.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent / "palomar_pb"
SUFFIXES = ("_pb2.py", "_pb2_grpc.py", "_pb2.pyi", "_pb2_grpc.pyi")
PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
PACKAGE_DOC = '"""Generated protocol buffer modules of one .proto package."""\n'


def proto_files(root: Path) -> list[str]:
    """Every .proto file below `root`, as the imports between them name it."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.proto"))


def generate(root: Path, out: Path) -> None:
    """Write modules and stubs for every .proto file of `root` below `out`."""
    files = proto_files(root)
    with_services = [name for name in files if re.search(r"^service ", (root / name).read_text(), re.M)]
    include = Path(grpc_tools.__file__).parent / "_proto"
    # The stub writers of this interpreter's environment, wherever PATH points.
    plugins = [f"--plugin={name}={Path(sys.executable).parent / name}" for name in PLUGINS]
    base = ["protoc", f"-I{root}", f"-I{include}", *plugins]
    runs = [
        [*base, f"--python_out={out}", f"--mypy_out=quiet:{out}", *files],
        [*base, f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", *with_services],
    ]
    for argv in runs:
        if protoc.main(argv) != 0:
            sys.exit("protoc failed: see its message above")
    packages = sorted({name.split("/")[0] for name in files})
    for path in generated(out):
        path.write_text(below_palomar_pb(path.read_text(), packages))
    for folder in sorted({path.parent for path in generated(out)} | {out / name for name in packages}):
        (folder / "__init__.py").write_text(PACKAGE_DOC)


def below_palomar_pb(text: str, packages: list[str]) -> str:
    """Rewrite imports of our own generated modules in `text`; descriptors are left as they are."""
    names = "|".join(packages)
    text = re.sub(rf"^from ({names})(\.[\w.]+)? import", r"from palomar_pb.\1\2 import", text, flags=re.M)
    # The module name that the message classes carry.
    return re.sub(rf"'({names})((?:\.\w+)*\.\w+_pb2)'", r"'palomar_pb.\1\2'", text)


def generated(root: Path) -> list[Path]:
    """The generated files below `root`."""
    return sorted(path for path in root.rglob("*_pb2*") if path.name.endswith(SUFFIXES))


def stale(root: Path, fresh: Path) -> list[str]:
    """Names of modules that differ from `fresh`, are missing, or have no .proto file any more."""
    have = {path.relative_to(root): path.read_bytes() for path in generated(root)}
    want = {path.relative_to(fresh): path.read_bytes() for path in generated(fresh)}
    return sorted(str(name) for name in have.keys() | want.keys() if have.get(name) != want.get(name))


def main() -> int:
    """Generate, or with `--check` compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a module is stale")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(ROOT, fresh)
        names = stale(ROOT, fresh)
        if args.check:
            for name in names:
                sys.stderr.write(f"{name} is not what its .proto file says: run `make proto`\n")
            return 1 if names else 0
        for name in names:
            source, target = fresh / name, ROOT / name
            if not source.exists():
                target.unlink()
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
        for path in fresh.rglob("__init__.py"):
            target = ROOT / path.relative_to(fresh)
            if not target.exists():
                target.write_bytes(path.read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
