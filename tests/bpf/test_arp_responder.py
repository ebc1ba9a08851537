"""The ARP responder: a pod's gateway is our program."""

from ipaddress import IPv4Address

import pytest

from datapath.abi.policy import PolicyKey
from tests.kit.bpfnode import TC_ACT_OK, TC_ACT_REDIRECT, BpfNode
from tests.kit.packets import POD_ONE, POD_TWO, ROUTER_ONE, WORLD, arp

pytestmark = pytest.mark.bpf


@pytest.mark.parametrize(
    "target", [ROUTER_ONE.ipv4, POD_TWO.ipv4, WORLD.ipv4, IPv4Address("0.0.0.1")], ids=str
)
def test_request_for_any_other_address_is_answered_with_the_host_side_s_mac(
    node: BpfNode, target: IPv4Address
) -> None:
    """Whatever a pod asks for is behind its veth."""
    outcome = node.send(POD_ONE, arp(POD_ONE, target))
    assert outcome.action == TC_ACT_REDIRECT
    expected = arp(POD_ONE, POD_ONE.ipv4, 2, POD_ONE.mac, sender_ipv4=target, sender_mac=POD_ONE.gateway_mac)
    assert outcome.packet == expected.macs(POD_ONE.gateway_mac, POD_ONE.mac).bytes()
    assert outcome.events == []


def test_request_for_the_pod_s_own_address_is_not_answered(node: BpfNode) -> None:
    """Duplicate address detection must not find a duplicate."""
    request = arp(POD_ONE, POD_ONE.ipv4)
    outcome = node.send(POD_ONE, request)
    assert (outcome.action, outcome.packet) == (TC_ACT_OK, request.bytes())


def test_probe_without_a_sender_address_is_allowed(node: BpfNode) -> None:
    """RFC 5227: a probe has 0.0.0.0 as sender."""
    probe = arp(POD_ONE, POD_ONE.ipv4, sender_ipv4=IPv4Address(0))
    assert node.send(POD_ONE, probe).action == TC_ACT_OK


def test_reply_of_the_pod_goes_to_the_stack_unchanged(node: BpfNode) -> None:
    """The stack may have asked."""
    reply = arp(POD_ONE, ROUTER_ONE.ipv4, 2, POD_ONE.gateway_mac)
    outcome = node.send(POD_ONE, reply)
    assert (outcome.action, outcome.packet) == (TC_ACT_OK, reply.bytes())


def test_arp_towards_the_pod_passes(node: BpfNode) -> None:
    """Our answers leave by the program that guards the pod, whatever its policy."""
    node.clear_policy(POD_ONE)
    answer = arp(POD_ONE, POD_ONE.ipv4, 2, POD_ONE.mac, sender_ipv4=ROUTER_ONE.ipv4)
    assert node.receive(POD_ONE, answer).action == TC_ACT_OK
    assert PolicyKey(0, egress=True) not in node.maps.policy(POD_ONE.endpoint_id).items()


def test_answers_are_counted_as_forwarded(node: BpfNode) -> None:
    """ARP has no event, so the metrics map is where it is seen."""
    before = node.forwarded(101)
    node.send(POD_ONE, arp(POD_ONE, ROUTER_ONE.ipv4))
    assert node.forwarded(101) == before + 1
