"""Real programs on real packets: pods of one node and of two, the host, the world."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from datapath.abi.conntrack import CtKey, Direction
from tests.kit.netns import (
    NetnsFactory,
    command,
    exec_in,
    ping,
    tcp_connect,
    tcp_listener,
    udp_socket,
)
from tests.kit.topology import Pod, Topology, allow_all, deny_all

pytestmark = [pytest.mark.root, pytest.mark.bpf]


@pytest.fixture
def topology(netns_factory: NetnsFactory, bpf_root: Path) -> Iterator[Topology]:
    made = Topology(netns_factory, bpf_root)
    yield made
    made.close()


def tcp_echo(client: Pod, server: Pod, text: bytes = b"hello") -> bytes:
    """Open a connection, send `text` and return what the server's side read."""
    with tcp_listener(server.netns, server.ip) as listener:
        port = listener.getsockname()[1]
        with tcp_connect(client.netns, server.ip, port) as outgoing:
            outgoing.sendall(text)
            accepted, _ = listener.accept()
            with accepted:
                accepted.settimeout(2)
                return accepted.recv(len(text))


def test_two_pods_of_a_node_talk(topology: Topology) -> None:
    """ICMP, TCP and UDP pass between two endpoints whose policy allows everything."""
    node = topology.add_node()
    one, two = topology.add_pod(node, 4001), topology.add_pod(node, 4002)
    assert ping(one.netns, two.ip)
    assert tcp_echo(one, two) == b"hello"
    with udp_socket(one.netns, one.ip) as sender, udp_socket(two.netns, two.ip) as receiver:
        sender.sendto(b"datagram", receiver.getsockname())
        data, peer = receiver.recvfrom(64)
        receiver.sendto(data.upper(), peer)
        assert sender.recv(64) == b"DATAGRAM"


def test_bulk_data_arrives_whole(topology: Topology) -> None:
    """20 MB over TCP between two pods of a node arrive unharmed, with GSO-sized packets."""
    node = topology.add_node()
    one, two = topology.add_pod(node, 4001), topology.add_pod(node, 4002)
    assert transfer(one, two, 20 << 20) == 20 << 20


def transfer(client: Pod, server: Pod, size: int) -> int:
    received = 0
    with (
        tcp_listener(server.netns, server.ip) as listener,
        tcp_connect(client.netns, server.ip, listener.getsockname()[1]) as outgoing,
    ):
        accepted, _ = listener.accept()
        outgoing.settimeout(20)

        def send() -> None:
            outgoing.sendall(bytes(size))
            outgoing.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        with accepted:
            accepted.settimeout(20)
            while chunk := accepted.recv(1 << 20):
                received += len(chunk)
        thread.join()
    return received


def test_empty_policy_denies_and_reply_is_allowed(topology: Topology) -> None:
    """Without entries nothing enters; with allow-all on one side only, the reply still passes."""
    node = topology.add_node()
    one, two = topology.add_pod(node, 4001), topology.add_pod(node, 4002, allow=False)
    assert not ping(one.netns, two.ip)
    allow_all(node, two.spec.endpoint_id)
    assert ping(one.netns, two.ip)


def test_revoked_policy_stops_a_live_connection(topology: Topology) -> None:
    """Established connections are judged anew when the policy revision moves."""
    node = topology.add_node()
    one, two = topology.add_pod(node, 4001), topology.add_pod(node, 4002)
    with (
        tcp_listener(two.netns, two.ip) as listener,
        tcp_connect(one.netns, two.ip, listener.getsockname()[1]) as outgoing,
    ):
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(0.5)
            outgoing.sendall(b"a")
            assert accepted.recv(1) == b"a"
            deny_all(node, two.spec.endpoint_id)
            outgoing.sendall(b"b")
            with pytest.raises(TimeoutError):
                accepted.recv(1)
            allow_all(node, two.spec.endpoint_id)
            accepted.settimeout(5)
            assert accepted.recv(1) == b"b"


def test_host_and_pod_talk(topology: Topology) -> None:
    """The node reaches its pod and the pod its node, by router address and by node address."""
    node = topology.add_node()
    pod = topology.add_pod(node, 4001)
    assert ping(node.netns, pod.ip)
    assert ping(pod.netns, node.config.router_ipv4)
    assert ping(pod.netns, node.ipv4)
    with (
        tcp_listener(node.netns, "0.0.0.0") as listener,
        tcp_connect(pod.netns, str(node.ipv4), listener.getsockname()[1]),
    ):
        accepted, peer = listener.accept()
        accepted.close()
        assert peer[0] == pod.ip


def test_two_nodes_talk_over_the_overlay(topology: Topology) -> None:
    """Pods of two nodes talk through VXLAN, and the receiving node knows the sender's identity."""
    first, second = topology.add_node(), topology.add_node()
    one, two = topology.add_pod(first, 4001), topology.add_pod(second, 4002)
    assert ping(one.netns, two.ip)
    assert tcp_echo(one, two) == b"hello"
    assert transfer(one, two, 5 << 20) == 5 << 20
    # The identity can only have come in the tunnel key: the receiver forgets the sender's address.
    from ipaddress import IPv4Network

    second.datapath.maps.ipcache.delete(IPv4Network(one.spec.ipv4))
    with udp_socket(one.netns, one.ip) as sender, udp_socket(two.netns, two.ip) as receiver:
        sender.sendto(b"x", receiver.getsockname())
        assert receiver.recv(8) == b"x"
        key = CtKey(
            two.spec.ipv4,
            one.spec.ipv4,
            receiver.getsockname()[1],
            sender.getsockname()[1],
            17,
            Direction.IN,
        )
        entries = {k: v for k, v in second.datapath.maps.ct.items() if k.protocol == 17}
        assert [v.source_identity for v in entries.values()] == [4001], (key, entries)


def test_host_reaches_remote_pod(topology: Topology) -> None:
    """A node reaches a pod of another node through the overlay."""
    first, second = topology.add_node(), topology.add_node()
    two = topology.add_pod(second, 4002)
    assert ping(first.netns, two.ip)


def test_pods_reach_the_world_masqueraded(topology: Topology) -> None:
    """What a pod sends outside the cluster carries the node's address; replies find the pod."""
    node = topology.add_node()
    world = topology.plug("w", "172.30.0.200")
    pod = topology.add_pod(node, 4001)
    with (
        tcp_listener(world, "0.0.0.0") as listener,
        tcp_connect(pod.netns, "172.30.0.200", listener.getsockname()[1]) as outgoing,
    ):
        accepted, peer = listener.accept()
        with accepted:
            accepted.sendall(b"from the world")
            assert outgoing.recv(64) == b"from the world"
        assert peer[0] == str(node.ipv4)


def test_filters_are_named_by_object_and_section(topology: Topology) -> None:
    """`bpftool net show` prints the field's names."""
    node = topology.add_node()
    pod = topology.add_pod(node, 4001)
    shown = exec_in(node.netns, "bpftool", "net", "show").stdout
    for line in (
        "cilium_host({host}) clsact/ingress bpf_host.o:[to-host]",
        "cilium_host({host}) clsact/egress bpf_host.o:[from-host]",
        "clsact/ingress bpf_host_cilium_net.o:[to-host]",
        "clsact/ingress bpf_overlay.o:[from-overlay]",
        "clsact/egress bpf_overlay.o:[to-overlay]",
        f"{pod.device.ifname}({pod.device.ifindex}) clsact/ingress bpf_lxc.o:[from-container]",
        f"{pod.device.ifname}({pod.device.ifindex}) clsact/egress bpf_lxc.o:[to-container]",
    ):
        assert line.format(host=node.datapath._host.ifindex) in shown


def test_bpftool_prints_the_documented_bytes(topology: Topology) -> None:
    """The field's ipcache recipe works as printed: identity and the node's address."""
    node = topology.add_node()
    pod = topology.add_pod(node, 53731)
    address = " ".join(f"{byte:02x}" for byte in pod.spec.ipv4.packed)
    recipe = f"40 00 00 00 00 00 00 01 {address} 00 00 00 00 00 00 00 00 00 00 00 00"
    pin = str(node.config.globals_dir / "cilium_ipcache")
    shown = command("bpftool", "map", "lookup", "pinned", pin, "key", "hex", *recipe.split())
    node_bytes = " ".join(f"{byte:02x}" for byte in node.ipv4.packed)
    assert f"e3 d1 00 00 {node_bytes} 00 00 00 00" in " ".join(shown.split())
