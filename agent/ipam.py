"""Addresses of a node's endpoints: who has which address of the pod CIDR.

Pure state, no I/O: the endpoints' state files are the memory across restarts (`reserve`). The first address
is the router; network and broadcast addresses are nobody's. A freed address is given out again as late as
possible, so that conntrack entries and peers' caches of its last owner have aged.
"""

from ipaddress import IPv4Address, IPv4Network

from palomar.errors import InvalidInputError, PermanentError


class PoolExhaustedError(PermanentError):
    """No address is free."""

    def __init__(self, pod_cidr: IPv4Network, capacity: int) -> None:
        """Name the pool and its size."""
        self.pod_cidr = pod_cidr
        self.capacity = capacity
        super().__init__(
            f"pod-cidr {pod_cidr} is exhausted: all {capacity} addresses are in use: delete endpoints or give"
            " the node a wider pod-cidr"
        )


class AddressInUseError(PermanentError):
    """The wished address belongs to another owner."""

    def __init__(self, ipv4: IPv4Address, owner: str) -> None:
        """Name the address and who has it."""
        self.ipv4 = ipv4
        self.owner = owner
        super().__init__(f"{ipv4} is in use by {owner}: leave the address out to get a free one")


class Ipam:
    """Allocator of one pod CIDR."""

    def __init__(self, pod_cidr: IPv4Network) -> None:
        """`pod_cidr` needs at least one address beside network, router and broadcast."""
        if pod_cidr.prefixlen > 30:
            raise InvalidInputError(f"{pod_cidr} has no room for an endpoint", "pod-cidr")
        self.pod_cidr = pod_cidr
        self.router = pod_cidr.network_address + 1
        self._first = int(self.router) + 1
        self._last = int(pod_cidr.broadcast_address) - 1
        self._next = self._first
        self._owners: dict[IPv4Address, str] = {}

    @property
    def capacity(self) -> int:
        """How many endpoints can have an address."""
        return self._last - self._first + 1

    @property
    def allocations(self) -> dict[IPv4Address, str]:
        """Every address in use with its owner, without the router."""
        return dict(self._owners)

    def allocate(self, owner: str, wish: IPv4Address | None = None) -> IPv4Address:
        """Give `owner` the wished address or the next free one.

        Raises PoolExhaustedError, AddressInUseError, InvalidInputError (a wish outside the pool).
        O(addresses in use) when nearly full, O(1) otherwise.
        """
        if wish is not None:
            self.reserve(wish, owner)
            return wish
        if len(self._owners) >= self.capacity:
            raise PoolExhaustedError(self.pod_cidr, self.capacity)
        while IPv4Address(self._next) in self._owners:
            self._advance()
        found = IPv4Address(self._next)
        self._owners[found] = owner
        self._advance()
        return found

    def reserve(self, ipv4: IPv4Address, owner: str) -> None:
        """Take exactly this address, e.g. a restored endpoint's. Idempotent for the same owner.

        Raises AddressInUseError, InvalidInputError.
        """
        if not self._first <= int(ipv4) <= self._last:
            raise InvalidInputError(
                f"{ipv4} is no address for endpoints of pod-cidr {self.pod_cidr}: choose one from"
                f" {IPv4Address(self._first)} to {IPv4Address(self._last)}",
                "addressing.ipv4",
            )
        holder = self._owners.get(ipv4)
        if holder is not None and holder != owner:
            raise AddressInUseError(ipv4, holder)
        self._owners[ipv4] = owner
        if int(ipv4) == self._next:
            self._advance()

    def release(self, ipv4: IPv4Address) -> None:
        """Give the address back. Idempotent."""
        self._owners.pop(ipv4, None)

    def _advance(self) -> None:
        self._next = self._first if self._next >= self._last else self._next + 1
