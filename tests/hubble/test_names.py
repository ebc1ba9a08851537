"""The names log: interned once, followed, kept through crashes."""

import json
import os
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubble import names as names_module
from hubble.flowendpoint import FlowEndpoint, Workload
from hubble.names import (
    NamesReader,
    NamesWriter,
    PolicyName,
    PolicyRule,
    endpoint_entry,
    parse_endpoint,
    parse_policy,
    policy_entry,
)
from palomar.errors import InvalidInputError

WEB = FlowEndpoint(12, 4242, "default", "demo", "web-1", ("k8s:app=web",), (Workload("web", "Deployment"),))
API = FlowEndpoint(0, 5151, "default", "demo", "api-1", ("k8s:app=api",))
RULE = PolicyRule(77, (PolicyName("allow", "demo", "CiliumNetworkPolicy", ("k8s:a=b",), 3, "ingress[0]"),))


def test_names_read_back_as_they_were_said(tmp_path):
    writer = NamesWriter.open(tmp_path)
    reader = NamesReader(tmp_path)
    assert reader.endpoint(1) is None
    web, api = writer.intern(WEB, "10.1.0.5"), writer.intern(API)
    writer.policy(RULE)
    writer.interface(7, "lxc0123")
    writer.identity(4242, ("k8s:app=web",))
    writer.flush()
    assert (reader.endpoint(web), reader.endpoint(api)) == (WEB, API)
    assert reader.policy(77) == RULE
    assert reader.interface(7) == "lxc0123"
    assert reader.identity_labels(4242) == ("k8s:app=web",)
    assert reader.endpoint(99) is None
    assert reader.policy(78) is None
    assert reader.interface(8) is None
    assert reader.identity_labels(1) is None
    writer.close()
    writer.close()


def test_the_same_name_said_again_costs_no_line_also_after_a_restart(tmp_path):
    writer = NamesWriter.open(tmp_path)
    ref = writer.intern(WEB)
    writer.policy(RULE)
    writer.interface(7, "lxc0123")
    writer.identity(1, ("reserved:host",))
    writer.close()
    size = writer.path.stat().st_size
    writer = NamesWriter.open(tmp_path)
    assert writer.intern(WEB) == ref
    writer.policy(RULE)
    writer.interface(7, "lxc0123")
    writer.identity(1, ("reserved:host",))
    writer.close()
    assert writer.path.stat().st_size == size


def test_a_reference_never_changes_but_the_last_word_on_a_cookie_counts(tmp_path):
    writer = NamesWriter.open(tmp_path)
    first = writer.intern(WEB)
    second = writer.intern(FlowEndpoint(13, 4242, "default", "demo", "web-2"))
    changed = PolicyRule(77, (), deny=True)
    writer.policy(RULE)
    writer.policy(changed)
    writer.close()
    reader = NamesReader(tmp_path)
    assert first != second
    assert reader.endpoint(first) == WEB
    assert reader.policy(77) == changed


def test_a_torn_last_line_is_cut_off_and_reading_waits_for_whole_lines(tmp_path):
    writer = NamesWriter.open(tmp_path)
    writer.intern(WEB)
    writer.close()
    with writer.path.open("ab") as log:
        log.write(b'{"k":"endpoint","ref":2,"id"')
    reader = NamesReader(tmp_path)
    assert reader.endpoint(2) is None
    assert reader.damaged == 0
    writer = NamesWriter.open(tmp_path)
    assert writer.intern(API) == 2
    writer.flush()
    assert reader.endpoint(2) == API
    writer.close()


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"[]",
        b'{"k":"sky"}',
        b'{"k":"endpoint","ref":"x"}',
        b'{"k":"policy","policies":{"x":1}}',
        b"\xff",
    ],
)
def test_a_damaged_line_is_counted_and_the_rest_is_read(tmp_path, line):
    writer = NamesWriter.open(tmp_path)
    writer.interface(1, "one")
    writer.close()
    with writer.path.open("ab") as log:
        log.write(line + b"\n")
    writer = NamesWriter.open(tmp_path)
    writer.interface(2, "two")
    writer.close()
    reader = NamesReader(tmp_path)
    assert (reader.interface(1), reader.interface(2), reader.damaged) == ("one", "two", 1)


def test_references_that_stored_rows_use_are_not_given_again_when_the_log_is_gone(tmp_path):
    writer = NamesWriter.open(tmp_path, {3, 17})
    assert writer.intern(WEB) == 18
    writer.close()


def test_a_log_that_grew_is_rewritten_without_what_no_row_uses(tmp_path, monkeypatch):
    monkeypatch.setattr(names_module, "COMPACT_BYTES", 4000)
    writer = NamesWriter.open(tmp_path)
    refs = [writer.intern(FlowEndpoint(number, pod=f"pod-{number}")) for number in range(60)]
    writer.policy(RULE)
    writer.close()
    reader = NamesReader(tmp_path)
    before = writer.path.stat().st_size
    writer = NamesWriter.open(tmp_path, {refs[3], refs[40]})
    assert writer.path.stat().st_size < before / 5
    assert writer.intern(WEB) == refs[-1] + 1
    writer.flush()
    assert reader.endpoint(refs[-1] + 1) == WEB
    assert reader.endpoint(refs[40]) == FlowEndpoint(40, pod="pod-40")
    assert reader.endpoint(refs[41]) is None
    assert reader.policy(77) == RULE
    writer.close()


TEXT = st.text(max_size=12)
ENDPOINTS = st.builds(
    FlowEndpoint,
    st.integers(0, 65535),
    st.integers(0, (1 << 32) - 1),
    TEXT,
    TEXT,
    TEXT,
    st.lists(TEXT, max_size=3).map(tuple),
    st.lists(st.builds(Workload, TEXT, TEXT), max_size=2).map(tuple),
)
POLICIES = st.builds(
    PolicyName, TEXT, TEXT, TEXT, st.lists(TEXT, max_size=2).map(tuple), st.integers(0, 1 << 40), TEXT
)


@given(ENDPOINTS)
def test_endpoints_survive_json(endpoint):
    assert parse_endpoint(json.loads(json.dumps(endpoint_entry(endpoint)))) == endpoint


@given(
    st.builds(
        PolicyRule, st.integers(0, (1 << 32) - 1), st.lists(POLICIES, max_size=3).map(tuple), st.booleans()
    )
)
def test_policy_rules_survive_json(rule):
    assert parse_policy(json.loads(json.dumps(policy_entry(rule)))) == rule


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ({"id": "12"}, "id"),
        ({"identity": -1}, "identity"),
        ({"labels": "k8s:app=web"}, "labels"),
        ({"labels": [1]}, "labels"),
        ({"pod": 7}, "pod"),
        ({"workloads": ["web"]}, "workloads"),
    ],
)
def test_a_wrong_field_is_named(entry, path):
    with pytest.raises(InvalidInputError) as caught:
        parse_endpoint(entry)
    assert caught.value.path == path


def test_a_full_pipe_of_lines_goes_out_whole(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:10]))
    writer = NamesWriter.open(tmp_path)
    ref = writer.intern(WEB)
    writer.close()
    monkeypatch.undo()
    assert NamesReader(tmp_path).endpoint(ref) == WEB


def test_a_full_disk_delays_names_and_loses_none(tmp_path, caplog):
    """The ingest goes on; a line that was half written is ended, not repeated."""
    writer = NamesWriter.open(tmp_path)
    writer.intern(API)
    writer.flush()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (writer.path.stat().st_size + 20, before[1]))
    try:
        ref = writer.intern(WEB)
        writer.flush()
        writer.policy(RULE)
        writer.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    reader = NamesReader(tmp_path)
    assert reader.endpoint(ref) is None
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    writer.flush()
    writer.close()
    assert (reader.endpoint(ref), reader.policy(77), reader.damaged) == (WEB, RULE, 0)
    assert len(writer.path.read_text().splitlines()) == 3
