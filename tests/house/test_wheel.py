"""What an installed node gets: the built wheel holds the storeys, the BPF objects and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOP_LEVEL = {"agent", "cli", "cluster", "datapath", "hubble", "lab", "palomar", "palomar_pb", "relay", "ui"}
OBJECTS = {"bpf_lxc.o", "bpf_host.o", "bpf_overlay.o"}


def test_the_wheel_holds_every_storey_and_the_bpf_objects(tmp_path: Path) -> None:
    """No compiler on the node: the objects travel in the wheel, and no other top-level name does."""
    uv = Path(sys.executable).parent / "uv"
    command = [str(uv), "build", "--wheel", "--quiet", "--out-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, timeout=100)
    wheel = next(tmp_path.glob("palomar-*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert top == TOP_LEVEL
    objects = {Path(name).name for name in names if name.startswith("datapath/objects/")}
    assert objects >= OBJECTS
    assert "lab/policies/shop.yaml" in names
