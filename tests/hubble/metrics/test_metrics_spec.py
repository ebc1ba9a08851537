"""The `hubble-metrics` setting: what it means, and what is refused with which words."""

import pytest

from hubble.metrics.spec import Contexts, MetricSpec, SideContext, parse
from palomar.errors import InvalidInputError


def test_the_whole_syntax() -> None:
    """Alternatives, labels in fixed order, own options, case-insensitive names, a metric without options."""
    assert parse(
        "flow:sourceContext=pod|identity;destinationContext=workload  "
        "drop:labelscontext=destination_namespace,source_pod,traffic_direction;SOURCECONTEXT=ip tcp "
        "dns:query;ignoreAAAA flows-to-world:any-drop;port;syn-only;sourceEgressContext=pod"
    ) == (
        MetricSpec("flow", Contexts(SideContext(("pod", "identity")), SideContext(("workload",)))),
        MetricSpec(
            "drop",
            Contexts(
                SideContext(("ip",)), labels=("source_pod", "destination_namespace", "traffic_direction")
            ),
        ),
        MetricSpec("tcp"),
        MetricSpec("dns", options=frozenset({"query", "ignoreAAAA"})),
        MetricSpec(
            "flows-to-world",
            Contexts(SideContext(egress=("pod",))),
            frozenset({"any-drop", "port", "syn-only"}),
        ),
    )
    assert parse("") == ()


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("flows", "hubble-metrics.flows", "no such metric"),
        ("httpV2:exemplars", "hubble-metrics.httpV2", "no layer 7 data"),
        ("flow flow:sourceContext=pod", "hubble-metrics", "flow is given twice"),
        ("flow:sourceContext=pods", "hubble-metrics.flow.sourceContext", "'pods' is not a value"),
        ("flow:sourceContext=", "hubble-metrics.flow.sourceContext", "no value"),
        ("flow:sourceContext", "hubble-metrics.flow.sourceContext", "no value"),
        ("flow:labelsContext=source", "hubble-metrics.flow.labelsContext", "'source' is not a value"),
        ("flow:query", "hubble-metrics.flow", "cannot use 'query'"),
        ("flow:sourceContext=pod;sourceContext=ip", "hubble-metrics.flow", "each once"),
        ("dns:query=maybe", "hubble-metrics.dns", "cannot use 'query=maybe'"),
    ],
)
def test_what_is_wrong_is_named(text: str, path: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as caught:
        parse(text)
    assert caught.value.path == path


def test_label_names_come_in_the_fields_order() -> None:
    [spec] = parse("flow:destinationContext=ip;sourceContext=ip;labelsContext=traffic_direction,source_app")
    assert spec.contexts.label_names == ("source_app", "traffic_direction", "source", "destination")
