"""What can go wrong with identities on one node."""

from ipaddress import IPv4Network, IPv6Network

from palomar.errors import InvalidInputError, TransientError


class InvalidLabelFilterError(InvalidInputError):
    """An item of the `labels` setting cannot be read."""

    def __init__(self, item: str, reason: str) -> None:
        """Keep the item; the message names it and the remedy."""
        self.item = item
        super().__init__(f"label filter {item!r}: {reason}: write [!][source:]pattern", "labels")


class LocalIdentitiesExhaustedError(TransientError):
    """Every number of the node-local scope is in use."""

    def __init__(self, network: IPv4Network | IPv6Network) -> None:
        """Keep the prefix that got no number."""
        self.network = network
        super().__init__(f"no node-local identity left for {network}: policies name too many CIDRs")
