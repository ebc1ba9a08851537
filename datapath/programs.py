"""One object of `bpf/` loaded for one device: its maps' pins, its tail call map's generations, its filters.

Not netlink devices (`link.py`) and not what the constants mean (`endpoint.py`, `node.py`). Replacing a
running object is atomic per filter: the new programs get a tail call map of their own, pinned under a
spare name until every filter points at them, then renamed over the old. A PROG_ARRAY without a user
reference is emptied by the kernel, so at every moment, also after kill -9, the map that attached programs
use is pinned under some name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Self

from datapath import tc
from datapath.abi.mapspecs import GLOBAL_MAPS, POLICY_SPEC, calls_map_name, policy_map_name
from datapath.bpffs import replace_pin
from datapath.errors import ObjectError
from datapath.link import Netlink
from datapath.loader import BpfObject, u32_be

CALLS_MAP = "cilium_calls"
_SHARED = frozenset(spec.name for spec in GLOBAL_MAPS)


@dataclass(frozen=True, slots=True)
class Attachment:
    """Which program goes where."""

    program: str
    ifindex: int
    hook: tc.Hook
    filter_name: str


def address_constant(address: IPv4Address) -> int:
    """Return an address as the value of a `be32` constant."""
    return u32_be(int(address))


def mask_constant(prefixlen: int) -> int:
    """Return the network-order mask of a prefix length."""
    return u32_be((0xFFFFFFFF << (32 - prefixlen)) & 0xFFFFFFFF)


class LoadedObject:
    """An object in the kernel whose programs are to be attached; close it after `attach`."""

    def __init__(
        self,
        path: Path,
        globals_dir: Path,
        constants: Mapping[str, int | bytes],
        map_sizes: Mapping[str, int],
        calls_owner: int | str,
        policy_id: int | None = None,
    ) -> None:
        """Open, specialise and load `path`; shared maps are reused by pin, nothing is attached yet.

        `calls_owner` names the tail call map, `policy_id` the endpoint whose policy map is used.
        Raises what `BpfObject.load` raises; leaves nothing behind then.
        """
        self._calls = globals_dir / calls_map_name(calls_owner)
        self._spare: Path | None = None
        self._attaching = False
        if not path.exists():
            raise ObjectError(path, "does not exist: run `make bpf`")
        self.object = BpfObject(path)
        try:
            for name in self.object.map_names:
                if name == CALLS_MAP:
                    self._spare = self._free_name()
                    self.object.set_pin(name, self._spare)
                elif name == POLICY_SPEC.name and policy_id is not None:
                    self.object.set_pin(name, globals_dir / policy_map_name(policy_id))
                elif name in _SHARED:
                    self.object.set_pin(name, globals_dir / name)
                    if name in map_sizes:
                        self.object.set_max_entries(name, map_sizes[name])
            self.object.set_constants(constants)
            self.object.load()
        except BaseException:
            self.object.close()
            raise

    def __enter__(self) -> Self:
        """Use as a context manager: what was not attached is taken away on the way out."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close; once attaching has begun a filter may use the new map, so its pin stays after an error."""
        if not self._attaching and self._spare is not None:
            self._spare.unlink(missing_ok=True)
        self.object.close()

    def attach(self, netlink: Netlink, attachments: list[Attachment]) -> None:
        """Put every program in place of its predecessor, then make this the current generation."""
        self._attaching = True
        for item in attachments:
            tc.attach(
                netlink, item.ifindex, item.hook, self.object.program_fd(item.program), item.filter_name
            )
        self._commit()

    def _commit(self) -> None:
        if self._spare is not None:
            replace_pin(self._spare, self._calls)
        for leftover in spare_names(self._calls):
            leftover.unlink(missing_ok=True)

    def _free_name(self) -> Path:
        taken = set(spare_names(self._calls))
        number = 1
        while (candidate := spare_name(self._calls, number)) in taken:
            number += 1
        return candidate


def spare_name(calls: Path, number: int) -> Path:
    """Return the pin of a generation that is not yet (or never became) the current one."""
    return calls.with_name(f"{calls.name}_next{number}")


def spare_names(calls: Path) -> list[Path]:
    """Return the pins of every generation but the current one."""
    return sorted(calls.parent.glob(calls.name + "_next*"))


def remove_calls(globals_dir: Path, calls_owner: int | str) -> None:
    """Unpin every generation of a tail call map. Idempotent."""
    calls = globals_dir / calls_map_name(calls_owner)
    for path in (calls, *spare_names(calls)):
        path.unlink(missing_ok=True)
