"""The files for Prometheus and Grafana: promtool accepts them, and they ask only for metrics that exist.

What exists is what is listed in docs/metrics.md (the agent's) and docs/flow-metrics.md, and what the
relay's and the page's registries hold; whether those pages are true is tested beside the code they
describe.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "palomar.json"
PROMETHEUS = ROOT / "deploy" / "prometheus"
PAGES = (ROOT / "docs" / "metrics.md", ROOT / "docs" / "flow-metrics.md")
SOURCES = (ROOT / "relay" / "metrics.py", ROOT / "ui" / "metrics.py")
METRIC = re.compile(r"\b(?:hubble|cilium|palomar)_[a-z0-9_]+")
SUFFIXES = ("_total", "_bucket", "_count", "_sum")


def dashboard() -> dict[str, Any]:
    return dict(json.loads(DASHBOARD.read_text()))


def expressions() -> Iterator[str]:
    """Every expression of the dashboard and of the alert rules."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for group in yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


def base_name(name: str) -> str:
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def known_metrics() -> set[str]:
    names = set()
    for page in PAGES:
        names |= set(re.findall(r"^\| `([a-z0-9_]+)` \|", page.read_text(), re.MULTILINE))
    for source in SOURCES:
        text = source.read_text()
        names |= set(METRIC.findall(text))
        # The page's come as f"palomar_ui_{name}" with the names in tuples.
        names |= {f"palomar_ui_{name}" for name in re.findall(r'\("([a-z_]+)", "', text)}
    return {base_name(name) for name in names}


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yaml"),
        ("check", "rules", "rules.yaml"),
        ("test", "rules", "rules_test.yaml"),
    ],
)
def test_promtool_accepts(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_that_makes_it_fire_and_one_that_does_not() -> None:
    rules = yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())["groups"]
    names = {rule["alert"] for group in rules for rule in group["rules"]}
    fires, silent = set(), set()
    for test in yaml.safe_load((PROMETHEUS / "rules_test.yaml").read_text())["tests"]:
        for case in test["alert_rule_test"]:
            (fires if case.get("exp_alerts") else silent).add(case["alertname"])
    assert fires == names
    assert silent == names


def test_only_metrics_that_exist_are_asked_for() -> None:
    known = known_metrics()
    asked = {name for expression in expressions() for name in METRIC.findall(expression)}
    assert len(asked) > 40
    assert {name for name in asked if base_name(name) not in known} == set()


def test_promtool_understands_every_query_of_the_dashboard(tmp_path: Path) -> None:
    """As recording rules, with Grafana's variables filled in."""
    rules = [
        {
            "record": f"panel:{number}",
            "expr": expression.replace("$__rate_interval", "1m").replace("$instance", ".*"),
        }
        for number, expression in enumerate(expressions())
    ]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_one_that_grafana_can_import() -> None:
    """Unique ids, panels that do not overlap, known panel types, queries with a data source variable."""
    board = dashboard()
    assert board["uid"] == "palomar"
    assert board["schemaVersion"] >= 36
    assert {item["name"] for item in board["templating"]["list"]} == {"datasource", "instance"}
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["type"] in {"row", "timeseries", "stat", "bargauge"}
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not own & cells, panel["title"]
        cells |= own
        assert panel["title"]
        for target in panel.get("targets", ()):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert target["refId"]


def test_no_alert_lacks_severity_summary_or_remedy() -> None:
    for group in yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
            assert rule["annotations"].keys() == {"summary", "description"}, rule["alert"]
