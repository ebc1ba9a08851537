"""Source NAT of pods that talk to the world, by nftables, until a BPF program does it.

One table per node namespace: packets from the node's pod CIDR to anything outside the cluster's pods that
leave by a device which is not ours get the device's address. Replaced in one transaction.
"""

from ipaddress import IPv4Network

from palomar import proc

TABLE = "palomar_masquerade"


def ruleset(pod_cidr: IPv4Network, cluster_cidr: IPv4Network) -> str:
    """Return the nft script that makes the table exactly this."""
    return f"""\
add table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {pod_cidr} ip daddr != {cluster_cidr} oifname != "cilium_*" \
counter masquerade comment "palomar masquerade non-cluster"
  }}
}}
"""


def install(pod_cidr: IPv4Network, cluster_cidr: IPv4Network) -> None:
    """Make the table of the calling thread's namespace; `palomar.proc.CommandError` where nft refuses."""
    proc.run(["nft", "-f", "-"], stdin=ruleset(pod_cidr, cluster_cidr))


def remove() -> None:
    """Take the table away. Idempotent."""
    proc.run(["nft", "-f", "-"], stdin=f"add table ip {TABLE}\ndelete table ip {TABLE}\n")
