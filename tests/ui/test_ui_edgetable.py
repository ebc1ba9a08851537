"""Edge counts over time: windows, rates, bounds."""

from palomar_pb.flow import flow_pb2
from ui.edgetable import BUCKET_NS, BUCKETS, LATEST_FLOWS, MAX_COUNT, MAX_PORTS_PER_PAIR, EdgeTable
from ui.flowrow import EdgeKey, FlowRow, VerdictClass
from ui.names import Workload

WEB, API = Workload("shop", "web"), Workload("shop", "api")
NOW_NS = 1_795_248_000_000_000_000
SECOND_NS = 1_000_000_000


def row(number: int, key: EdgeKey, verdict: VerdictClass = VerdictClass.FORWARDED) -> FlowRow:
    return FlowRow.of(number, key, verdict, flow_pb2.Flow(uuid=str(number)), str(number))


def key(port: int, source: Workload = WEB) -> EdgeKey:
    return EdgeKey(source, API, "TCP", port)


def test_counts_fall_out_of_the_window_as_time_passes() -> None:
    """A flow is in the five-minute window for five minutes and gone from the table after fifteen."""
    table = EdgeTable()
    table.add(row(1, key(80)), NOW_NS, NOW_NS)
    five_minutes = 300 * SECOND_NS // BUCKET_NS
    assert table.window(NOW_NS, five_minutes).totals.sum() == 1
    assert table.window(NOW_NS + 299 * SECOND_NS, five_minutes).totals.sum() == 1
    assert table.window(NOW_NS + 303 * SECOND_NS, five_minutes).totals.sum() == 0
    assert table.window(NOW_NS + 303 * SECOND_NS, BUCKETS).totals.sum() == 1
    assert table.window(NOW_NS + 3600 * SECOND_NS, BUCKETS).totals.sum() == 0


def test_rate_is_of_the_last_ten_seconds() -> None:
    """Twenty flows in the last two seconds after a quiet minute are about two a second over ten."""
    table = EdgeTable()
    table.add(row(0, key(80)), NOW_NS - 60 * SECOND_NS, NOW_NS - 60 * SECOND_NS)
    for number in range(20):
        table.add(row(number, key(80)), NOW_NS, NOW_NS)
    rate = table.window(NOW_NS, 30).rates.sum()
    assert 1.5 < rate < 2.5


def test_a_flow_with_a_time_outside_the_window_counts_as_now() -> None:
    """A node whose clock is an hour off is still on the map."""
    table = EdgeTable()
    table.add(row(1, key(80)), NOW_NS - 3600 * SECOND_NS, NOW_NS)
    table.add(row(2, key(80)), NOW_NS + 3600 * SECOND_NS, NOW_NS)
    window = table.window(NOW_NS, 2)
    assert window.totals.sum() == 2
    assert window.timeline([0])[-1][VerdictClass.FORWARDED] == 2


def test_a_port_scan_folds_into_one_edge() -> None:
    """After a dozen ports between two workloads the rest share an edge."""
    table = EdgeTable()
    for port in range(1, 1000):
        folded = table.fold(key(port))
        table.add(row(port, folded), NOW_NS, NOW_NS)
    assert len(table) == MAX_PORTS_PER_PAIR + 1
    assert table.window(NOW_NS, 2).totals.sum() == 999


def test_idle_edges_give_way_and_busy_ones_do_not() -> None:
    """A full table takes a new edge only in place of one that was silent for the whole window."""
    table = EdgeTable(max_edges=2)
    names = [Workload("shop", f"w{number}") for number in range(4)]
    table.add(row(1, key(80, names[0])), NOW_NS, NOW_NS)
    table.add(row(2, key(80, names[1])), NOW_NS, NOW_NS)
    table.add(row(3, key(80, names[2])), NOW_NS, NOW_NS)
    assert table.unplaced == 1
    later_ns = NOW_NS + (BUCKETS + 2) * BUCKET_NS
    table.add(row(4, key(80, names[3])), later_ns, later_ns)
    assert table.unplaced == 1
    assert {record.key.source for record in table.records()} == {names[1], names[3]}
    assert table.window(later_ns, BUCKETS).totals.sum() == 1


def test_dropped_flows_are_kept_beside_many_forwarded_ones() -> None:
    """The reason of a drop is still known after a thousand flows that passed."""
    table = EdgeTable()
    table.add(row(0, key(80), VerdictClass.DROPPED), NOW_NS, NOW_NS)
    for number in range(1, 1000):
        table.add(row(number, key(80)), NOW_NS, NOW_NS)
    (record,) = table.records()
    assert [kept.seq for kept in record.latest_dropped] == [0]
    assert table.get(record.key.id) is record
    assert table.get("nonsense") is None


def test_a_full_count_stays_full() -> None:
    """More flows of an edge in one bucket than a count holds are shown as the most, never as few."""
    table, flow = EdgeTable(), row(1, key(80))
    for _ in range(MAX_COUNT + 5):
        table.add(flow, NOW_NS, NOW_NS)
    assert table.window(NOW_NS, 30).totals.sum() == MAX_COUNT


def test_an_edge_keeps_its_latest_flows_and_drops_apart() -> None:
    """The newest twelve of each, oldest first."""
    table = EdgeTable()
    table.add(row(0, key(80), VerdictClass.DROPPED), NOW_NS, NOW_NS)
    for number in range(1, 31):
        table.add(row(number, key(80)), NOW_NS, NOW_NS)
    (record,) = table.records()
    assert [kept.seq for kept in record.latest] == list(range(31 - LATEST_FLOWS, 31))
    assert [kept.seq for kept in record.latest_dropped] == [0]
