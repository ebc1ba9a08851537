"""Hubble's metric handlers by their names in the configuration.

Pure. Input: a metric of the configuration; output: the handlers that count for it. What counts where is
Hubble's: see docs/flow-metrics.md. Contexts are not here (`hubble.metrics.contexts`), nor the counting
(`hubble.metrics.metric`).
"""

from collections.abc import Iterator

import numpy as np

from hubble.metrics.contexts import Indices
from hubble.metrics.family import Base, Family, Handler, Labels
from hubble.metrics.flowhandler import FlowHandler
from hubble.metrics.packethandlers import IcmpHandler, PortDistributionHandler, TcpHandler
from hubble.metrics.spec import MetricSpec
from hubble.metrics.verdicthandlers import DropHandler, FlowsToWorldHandler, PolicyHandler
from hubble.metrics.view import BlockView


class SilentHandler:
    """A family that has no data yet: it is announced, so that dashboards find it."""

    key_bits = 0
    asks_world = False

    def __init__(self, family: Family) -> None:
        """Announce `family`."""
        self.family = family

    def select(self, view: BlockView) -> tuple[Indices | None, Base]:
        """No row."""
        return np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.uint32)

    def labels(self, base: int) -> Iterator[tuple[Labels, Labels]]:
        """Yield nothing."""
        yield from ()


def _dns_handlers(options: frozenset[str]) -> list[Handler]:
    query = ("query",) if "query" in options else ()
    return [
        SilentHandler(
            Family(
                "hubble_dns_queries_total", "DNS queries.", after=("rcode", "qtypes", "ips_returned", *query)
            )
        ),
        SilentHandler(
            Family(
                "hubble_dns_responses_total",
                "DNS responses.",
                after=("rcode", "qtypes", "ips_returned", *query),
            )
        ),
        SilentHandler(
            Family(
                "hubble_dns_response_types_total", "DNS answers by type.", after=("type", "qtypes", *query)
            )
        ),
    ]


def make_handlers(spec: MetricSpec) -> list[Handler]:
    """Return the handlers of a metric."""
    match spec.name:
        case "flow":
            return [FlowHandler()]
        case "drop":
            return [DropHandler()]
        case "tcp":
            return [TcpHandler()]
        case "icmp":
            return [IcmpHandler()]
        case "port-distribution":
            return [PortDistributionHandler()]
        case "flows-to-world":
            return [FlowsToWorldHandler(spec.options)]
        case "policy":
            return [PolicyHandler()]
        case "dns":
            return _dns_handlers(spec.options)
        case _:
            raise ValueError(spec.name)
