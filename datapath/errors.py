"""What can go wrong at the kernel boundary, split by what the caller must do.

Not here: errors of configuration files or the API. Every error carries its facts as attributes and a
message that names the object and the remedy.
"""

from dataclasses import dataclass
from pathlib import Path

from palomar.errors import NotSupportedError, PalomarError, PermanentError, TransientError


class DatapathError(PalomarError):
    """Root of this package's errors."""


class FeatureMissingError(DatapathError, NotSupportedError):
    """This kernel (or this process's privileges) lacks something the datapath cannot do without."""

    def __init__(self, feature: str, detail: str, remedy: str) -> None:
        """Keep the feature's name, what was tried, and what to do about it."""
        self.feature = feature
        self.detail = detail
        self.remedy = remedy
        super().__init__(f"this kernel lacks {feature} ({detail}): {remedy}")


class ObjectError(DatapathError, PermanentError):
    """An ELF object cannot be opened, specialised or loaded; `log` holds libbpf's own words."""

    def __init__(self, path: Path | str, what: str, errno: int = 0, log: str = "") -> None:
        """Keep the object's path, the error number (0: none) and the captured log."""
        self.path = Path(path)
        self.errno = errno
        self.log = log
        tail = log.strip()[-2000:]
        super().__init__(f"{path}: {what}" + (f"\n{tail}" if tail else ""))


class VerifierError(ObjectError):
    """The kernel refused a program; `log` ends with the verifier's reason."""


@dataclass(frozen=True, slots=True)
class MapDifference:
    """One attribute in which a pinned map is not what the object needs."""

    pin_path: Path
    attribute: str
    needed: str
    pinned: str


class MapMismatchError(DatapathError, PermanentError):
    """A pinned map has another layout than this build's; it is never silently reused."""

    def __init__(self, differences: tuple[MapDifference, ...]) -> None:
        """Keep every difference of every map of the object."""
        self.differences = differences
        lines = "; ".join(
            f"{d.pin_path}: {d.attribute} is {d.pinned}, this build needs {d.needed}" for d in differences
        )
        paths = sorted({str(d.pin_path) for d in differences})
        super().__init__(
            f"pinned maps do not match: {lines}. Stop the agent that uses them, or accept a restart of their "
            f"contents and remove them: rm {' '.join(paths)}"
        )


class MapError(DatapathError, TransientError):
    """A map operation failed in a way that may pass (no memory, a full map, a lost race)."""

    def __init__(self, map_name: str, operation: str, errno: int, reason: str) -> None:
        """Keep the map's name, the operation and the error number."""
        self.map_name = map_name
        self.operation = operation
        self.errno = errno
        super().__init__(f"{map_name}: {operation} failed: {reason}")


class MapMissingError(DatapathError, PermanentError):
    """No map is pinned at this path."""

    def __init__(self, pin_path: Path) -> None:
        """Keep the path."""
        self.pin_path = pin_path
        super().__init__(f"no map is pinned at {pin_path}: is the agent running with this bpf-root?")


class BpffsError(DatapathError, PermanentError):
    """The BPF file system is missing or cannot be used."""


class BpffsInUseError(BpffsError):
    """Another agent owns this bpf root."""

    def __init__(self, bpf_root: Path, lock_path: Path, holder_pid: int | None) -> None:
        """Keep the root, the lock and the holder's process id (None: not readable)."""
        self.bpf_root = bpf_root
        self.lock_path = lock_path
        self.holder_pid = holder_pid
        holder = f"process {holder_pid}" if holder_pid else "another process"
        super().__init__(
            f"{bpf_root} is in use by {holder} (lock {lock_path}): stop that agent or choose another bpf-root"
        )


class NamespaceMissingError(DatapathError, PermanentError):
    """The network namespace at this path does not exist or is not one."""

    def __init__(self, netns: str, reason: str) -> None:
        """Keep the path."""
        self.netns = netns
        super().__init__(f"network namespace {netns}: {reason}")


class DeviceExistsError(DatapathError, PermanentError):
    """A device of that name is already there and is not ours to replace."""

    def __init__(self, ifname: str, where: str) -> None:
        """Keep the device's name and the namespace that holds it."""
        self.ifname = ifname
        self.where = where
        super().__init__(f"device {ifname} already exists in {where}: remove it or choose another name")


class DeviceMissingError(DatapathError, PermanentError):
    """A device that must be there is not."""

    def __init__(self, ifname: str, remedy: str) -> None:
        """Keep the device's name."""
        self.ifname = ifname
        super().__init__(f"device {ifname} does not exist: {remedy}")


class NetlinkError(DatapathError, TransientError):
    """The kernel refused a netlink request."""

    def __init__(self, what: str, errno: int, reason: str) -> None:
        """Keep the request in words and the error number."""
        self.what = what
        self.errno = errno
        super().__init__(f"{what}: {reason}")
