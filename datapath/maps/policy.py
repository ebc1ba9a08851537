"""One endpoint's policy map. Which entries it holds, the agent decides; bytes are `datapath.abi.policy`."""

from pathlib import Path

from datapath.abi.policy import PolicyEntry, PolicyKey
from datapath.maps.raw import RawMap


class PolicyMap:
    """`cilium_policy_v2_NNNNN`: one endpoint's allowed and denied traffic."""

    def __init__(self, raw: RawMap, path: Path) -> None:
        """Wrap `raw`, pinned at `path`."""
        self.raw = raw
        self.path = path

    def upsert(self, key: PolicyKey, entry: PolicyEntry) -> None:
        """Write the decision under `key`. Idempotent."""
        self.raw.update(key.pack(), entry.pack(key))

    def delete(self, key: PolicyKey) -> bool:
        """Remove `key`; False where it was not there."""
        return self.raw.delete(key.pack())

    def items(self) -> dict[PolicyKey, PolicyEntry]:
        """Return every entry."""
        return {PolicyKey.unpack(key): PolicyEntry.unpack(value) for key, value in self.raw.items()}

    def remove(self) -> None:
        """Unpin the map; programs that use it keep it until they go. Idempotent."""
        self.path.unlink(missing_ok=True)
        self.raw.close()
