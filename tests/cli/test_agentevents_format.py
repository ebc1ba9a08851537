"""Agent events in the field's words."""

from datetime import UTC

import pytest
from google.protobuf import json_format

from cli.format.agentevents import details
from cli.format.timestamps import TimeFormat
from palomar_pb.flow import flow_pb2

TIME = TimeFormat("RFC3339", UTC)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"agent_start": {"time": "2026-11-21T08:00:00Z"}}, "start time: 2026-11-21T08:00:00Z"),
        ({"policy_update": {"labels": ["a", "b"], "revision": 3}}, "labels: [a,b], revision: 3, count: 0"),
        ({"endpoint_regenerate": {"id": 7, "labels": ["a"]}}, "id: 7, labels: [a]"),
        ({"endpoint_regenerate": {"id": 7, "error": "no map"}}, "id: 7, labels: [], error: no map"),
        ({"endpoint_update": {"id": 7}}, "id: 7"),
        (
            {"endpoint_update": {"id": 7, "labels": ["a"], "pod_name": "web-1", "namespace": "demo"}},
            "id: 7, namespace: demo, pod name: web-1",
        ),
        ({"ipcache_update": {"cidr": "10.0.0.1/32"}}, "cidr: 10.0.0.1/32, identity: 0, encrypt key: 0"),
        (
            {
                "ipcache_update": {
                    "cidr": "10.0.0.1/32",
                    "identity": 300,
                    "old_identity": 0,
                    "host_ip": "172.30.0.1",
                    "old_host_ip": "172.30.0.2",
                    "pod_name": "web-1",
                    "namespace": "demo",
                }
            },
            (
                "cidr: 10.0.0.1/32, identity: 300, old identity: 0, host ip: 172.30.0.1, "
                "old host ip: 172.30.0.2, encrypt key: 0, namespace: demo, pod name: web-1"
            ),
        ),
        (
            {
                "service_upsert": {
                    "id": 4,
                    "frontend_address": {"ip": "fd00::1", "port": 80},
                    "backend_addresses": [{"ip": "10.0.0.1", "port": 1}, {"ip": "10.0.0.2", "port": 2}],
                    "type": "ClusterIP",
                    "traffic_policy": "Cluster",
                    "name": "web",
                    "namespace": "demo",
                }
            },
            (
                "id: 4, frontend: [fd00::1]:80, backends: [10.0.0.1:1,10.0.0.2:2], type: ClusterIP, "
                "traffic policy: Cluster, namespace: demo, name: web"
            ),
        ),
        ({"service_delete": {"id": 4}}, "id: 4"),
        ({"unknown": {"type": "9", "notification": "x"}}, "type: 9, notification: x"),
        ({}, "UNKNOWN"),
    ],
    ids=str,
)
def test_details(event, text):
    assert details(json_format.ParseDict(event, flow_pb2.AgentEvent()), TIME) == text
