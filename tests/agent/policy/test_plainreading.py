"""Explaining a flow: the outcome and the rules for and against it."""

from typing import Any

import pytest

from agent.policy.resolve import EnforcementMode
from tests.agent.policy.cast import API, CLIENT, HOST, IDENTITIES, TCP, WEB, policies
from tests.agent.policy.plainreading import Flow, Outcome, explain

FROM_API = {"fromEndpoints": [{"matchLabels": {"app": "api"}}]}
PORT = {"toPorts": [{"ports": [{"port": "80"}]}]}


@pytest.mark.parametrize(
    ("specs", "remote", "expected", "allowing", "denying"),
    [
        ([], API, Outcome.NOT_ENFORCED, [], []),
        ([{"ingress": [FROM_API]}], API, Outcome.ALLOWED, ["demo/p0 ingress[0]"], []),
        ([{"ingress": [{**FROM_API, **PORT}]}], API, Outcome.ALLOWED, ["demo/p0 ingress[0].toPorts[0]"], []),
        ([{"ingress": [FROM_API]}], CLIENT, Outcome.DENIED_BY_DEFAULT, [], []),
        (
            [{"ingress": [PORT]}, {"ingressDeny": [FROM_API]}],
            API,
            Outcome.DENIED,
            ["demo/p0 ingress[0].toPorts[0]"],
            ["demo/p1 ingressDeny[0]"],
        ),
        (
            [{"ingressDeny": [FROM_API], "enableDefaultDeny": {"ingress": False}}],
            CLIENT,
            Outcome.ALLOWED_BY_DEFAULT,
            [],
            [],
        ),
        ([{"ingress": [FROM_API]}], HOST, Outcome.ALLOWED_LOCALHOST, [], []),
    ],
)
def test_a_flow_is_explained(
    specs: list[dict[str, Any]], remote: int, expected: Outcome, allowing: list[str], denying: list[str]
) -> None:
    """TCP to port 80 of the web pod."""
    flow = Flow(egress=False, remote=IDENTITIES[remote], protocol=TCP, dport=80)
    told = explain(IDENTITIES[WEB], flow, policies(*specs), allow_localhost=True)
    assert told.outcome is expected
    assert [f"{name} {path}" for name, path in told.allowing] == allowing
    assert [f"{name} {path}" for name, path in told.denying] == denying


def test_default_deny_names_the_closing_policies() -> None:
    """Not those that leave the direction open; none where the mode closes it."""
    flow = Flow(egress=False, remote=IDENTITIES[CLIENT], protocol=TCP, dport=80)
    found = policies({"ingress": [FROM_API]}, {"ingress": [{}], "enableDefaultDeny": {"ingress": False}})
    told = explain(IDENTITIES[WEB], flow, found)
    assert [str(name) for name in told.closing] == ["demo/p0"]
    told = explain(IDENTITIES[WEB], flow, (), EnforcementMode.ALWAYS)
    assert (told.outcome, told.closing) == (Outcome.DENIED_BY_DEFAULT, ())
