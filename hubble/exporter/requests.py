"""Export requests of OTLP as bytes: records into a logs request, metric families into a metrics request.

Pure. Both say on top whose they are: the resource (this node) and the scope (Palomar). Source:
opentelemetry/proto/collector/{logs,metrics}/v1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope as SdkScope

from hubble.exporter import attributes as otel
from hubble.metrics.registry import FamilyTotals
from hubble.wirebytes import delimited, tag, varint

SCOPE = "palomar.flows"
MAX_REQUEST_BYTES = 3 << 20
"""gRPC servers refuse messages of more than 4 MiB unless told otherwise."""
_RESOURCE_LOGS = tag(1, delimited=True)
_RESOURCE, _SCOPE_LOGS = tag(1, delimited=True), tag(2, delimited=True)
_SCOPE, _LOG_RECORDS = tag(1, delimited=True), tag(2, delimited=True)


@dataclass(frozen=True, slots=True)
class Origin:
    """Who exports."""

    node: str
    cluster: str
    version: str

    @property
    def resource(self) -> Resource:
        """As the SDK has it, with what it says about itself and OTEL_RESOURCE_ATTRIBUTES."""
        return Resource.create(
            {
                "service.name": "palomar",
                "service.version": self.version,
                "service.instance.id": f"{self.cluster}/{self.node}",
                "host.name": self.node,
                otel.K8S_NODE_NAME: self.node,
                otel.K8S_CLUSTER_NAME: self.cluster,
            }
        )


class RequestEncoder:
    """Wraps what is exported into requests."""

    def __init__(self, origin: Origin) -> None:
        """Encode what is the same in every request."""
        self._resource = origin.resource
        self._scope = SdkScope(SCOPE, origin.version)
        attributes = [
            KeyValue(key=key, value=AnyValue(string_value=str(value)))
            for key, value in self._resource.attributes.items()
        ]
        self._head = delimited(_RESOURCE, resource_pb2.Resource(attributes=attributes).SerializeToString())
        scope = InstrumentationScope(name=SCOPE, version=origin.version)
        self._scope_head = delimited(_SCOPE, scope.SerializeToString())

    def logs(self, records: Sequence[bytes]) -> bytes:
        """Return an ExportLogsServiceRequest.

        Lengths first, then one join: a batch is a megabyte, not to be copied at each level.
        """
        heads = [_LOG_RECORDS + varint(len(record)) for record in records]
        length = len(self._scope_head) + sum(map(len, heads)) + sum(map(len, records))
        scope = _SCOPE_LOGS + varint(length)
        length += len(self._head) + len(scope)
        resource = _RESOURCE_LOGS + varint(length)
        pieces = chain.from_iterable(zip(heads, records, strict=True))
        return b"".join((resource, self._head, scope, self._scope_head, *pieces))

    def metrics(
        self, families: Sequence[FamilyTotals], start_ns: int, now_ns: int
    ) -> Iterator[tuple[bytes, int]]:
        """Yield ExportMetricsServiceRequests of sums since `start_ns`, each with its number of points.

        None is larger than MAX_REQUEST_BYTES but for one of a single point.
        """
        counted = [family for family in families if family.totals]
        if not counted:
            return
        scope = ScopeMetrics(self._scope, [_metric(family, start_ns, now_ns) for family in counted], "")
        data = MetricsData([ResourceMetrics(self._resource, [scope], "")])
        request, points = encode_metrics(data).SerializeToString(), sum(len(f.totals) for f in counted)
        if len(request) <= MAX_REQUEST_BYTES or points == 1:
            yield request, points
            return
        for half in _halves(counted):
            yield from self.metrics(half, start_ns, now_ns)


def fitting(records: Sequence[bytes], limit: int = MAX_REQUEST_BYTES) -> int:
    """Return how many of the first records make a request of at most `limit` bytes (at least one)."""
    size = 0
    for count, record in enumerate(records):
        size += len(record) + 6
        if size > limit:
            return max(1, count)
    return len(records)


def _halves(families: Sequence[FamilyTotals]) -> tuple[Sequence[FamilyTotals], Sequence[FamilyTotals]]:
    """Halve a list of families, or the only one's series."""
    middle = len(families) // 2
    if middle:
        return families[:middle], families[middle:]
    family = families[0]
    middle = len(family.totals) // 2
    return [replace(family, totals=family.totals[:middle])], [replace(family, totals=family.totals[middle:])]


def _metric(family: FamilyTotals, start_ns: int, now_ns: int) -> Metric:
    points = [
        NumberDataPoint(dict(zip(family.label_names, values, strict=True)), start_ns, now_ns, count)
        for values, count in family.totals
    ]
    total = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
    return Metric(family.name, family.help, "{flow}", total)
