"""Every event accounted for: emitted = stored + lost, per CPU, by sequence number.

Pure. Input: what a drain brought and how far the kernel had counted; output: the CPU's new account.

Sequence numbers count every event the programs tried, also those the ring refused. Their order within a ring
may be inverted (a program interrupted between taking a number and writing the record), so neighbours say
nothing: sets are counted. A number counts as lost only once it was taken before the *previous* drain and did
not come with this one; if it comes later still, the loss is taken back by the same formula.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class CpuAccount:
    """What became of the events of one CPU since its counters began (`palomar_event_stats` was made)."""

    cpu: int
    stored: int = 0
    """Rows of this CPU written to the store, overwritten ones included."""
    lost: int = 0
    """Events tried in the kernel that will not come: ring full, nobody reading, or malformed."""
    failed: int = 0
    """The kernel's count of events that the ring refused."""
    suppressed: int = 0
    """The kernel's count of events not tried: aggregated away."""
    malformed: int = 0
    """Samples of an unknown version or size; they are part of `lost`."""
    next_seq: int = 0
    """The kernel's `emitted` when the ring was last drained: every stored number is below it."""
    logged: int = 0
    """How much of `lost` stands in the losses log."""

    @property
    def emitted(self) -> int:
        """Events accounted for; equals the kernel's counter once the ring is empty."""
        return self.stored + self.lost


@dataclass(frozen=True, slots=True)
class Drained:
    """What one drain of one CPU's ring brought."""

    stored: int
    """Rows taken over."""
    ahead: int
    """Of these, with a sequence number not below the account's `next_seq` before this drain."""
    malformed: int = 0


@dataclass(frozen=True, slots=True)
class KernelCount:
    """`palomar_event_stats` of one CPU."""

    emitted: int
    failed: int
    suppressed: int


def settle(account: CpuAccount, drained: Drained, kernel: KernelCount) -> CpuAccount:
    """Return the account after a drain, with `kernel` read after the ring's head was.

    All that was tried before the previous drain (`account.next_seq`) has by now come or never will, apart
    from the late ones described above.
    """
    stored = account.stored + drained.stored
    return replace(
        account,
        stored=stored,
        lost=max(0, account.next_seq - (stored - drained.ahead)),
        failed=kernel.failed,
        suppressed=kernel.suppressed,
        malformed=account.malformed + drained.malformed,
        next_seq=max(account.next_seq, kernel.emitted),
    )
