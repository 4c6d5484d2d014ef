"""The dashboard and the alerts that ship with the docs ask for what there is."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml

from jupyterhub_gpuworkshop.service.metric_catalogue import BY_ATTENDEE, TOTALS

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
DASHBOARD = json.loads((EXAMPLES / "grafana" / "gpuworkshop.json").read_text())
ALERTS = yaml.safe_load((EXAMPLES / "prometheus" / "alerts.yml").read_text())
SCRAPE = yaml.safe_load((EXAMPLES / "prometheus" / "prometheus.yml").read_text())
BY_NAME = {metric.name: metric for metric in (*TOTALS, *BY_ATTENDEE)}
# Prometheus adds them to everything that it scrapes.
ADDED = {"instance", "job"}

RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]


def panels():
    """Return every panel, those in folded rows too."""
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", ())


def asked():
    """Return every expression, with where it stands."""
    for panel in panels():
        for target in panel.get("targets", ()):
            name = f"{panel['title']}-{target['refId']}"
            yield pytest.param(target["expr"], id=name)
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield pytest.param(variable["definition"], id=variable["name"])
    for rule in RULES:
        yield pytest.param(rule["expr"], id=rule["alert"])


@pytest.mark.parametrize("expression", list(asked()))
def test_what_is_asked_for_is_told_with_these_labels(expression):
    found = re.findall(r"\b(gpuworkshop_\w+)(?:\{([^}]*)\})?", expression)
    assert found or expression == 'up{job="gpuworkshop"} == 0'
    known = set(ADDED)
    for name, matchers in found:
        labels = set(BY_NAME[name].labels) | ADDED
        assert set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', matchers)) <= labels
        known |= labels
    for grouped in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        assert set(re.split(r",\s*", grouped)) <= known


def test_every_metric_but_a_few_is_on_the_dashboard_or_in_an_alert():
    said = json.dumps([DASHBOARD, ALERTS])
    unused = {name for name in BY_NAME if name not in said}
    assert unused == {
        "gpuworkshop_snapshots_total",
        "gpuworkshop_problems",
        "gpuworkshop_needed",
        "gpuworkshop_device_memory_free_bytes",
    }


def test_every_metric_is_in_the_reference_with_its_words():
    path = EXAMPLES.parent / "docs" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lines = module.metrics().splitlines()
    for metric in BY_NAME.values():
        (line,) = (x for x in lines if x.startswith(f"- `{metric.name}` "))
        assert line.endswith(metric.help)
        assert re.findall(r"`(\w+)`", line)[1:] == list(metric.labels)


def test_what_names_attendees_is_in_the_folded_row_alone():
    in_the_open = json.dumps([x for x in DASHBOARD["panels"] if not x.get("collapsed")])
    for metric in BY_ATTENDEE:
        assert metric.name not in in_the_open
        assert metric.name not in json.dumps(ALERTS)
    (folded,) = (x for x in DASHBOARD["panels"] if x.get("collapsed"))
    for panel in folded["panels"]:
        assert "metrics.by_attendee" in panel["description"]


def test_the_dashboard_takes_whatever_prometheus_there_is():
    for panel in panels():
        for part in (panel, *panel.get("targets", ())):
            if panel["type"] != "row":
                assert part["datasource"]["uid"] == "${datasource}"
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    titles = {panel["title"] for panel in panels()}
    assert {"Waiting for a share", "Memory taken back", "Leases", "Events"} <= titles


def test_no_panel_covers_another():
    covered = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & covered, panel["title"]
        covered |= cells


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_it_knows_and_what_to_do(rule):
    words = rule["annotations"]
    assert len(words["summary"].split()) > 4
    assert len(words["description"].split()) > 8
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    named = set(re.findall(r"\$labels\.(\w+)", json.dumps(words)))
    metrics = re.findall(r"gpuworkshop_\w+", rule["expr"])
    # What is alerted of stands first.
    labels = BY_NAME[metrics[0]].labels if metrics else ()
    assert named <= {*labels, *ADDED}


def test_the_token_is_in_a_file_of_its_own_and_the_job_is_the_alerts_own():
    (job,) = SCRAPE["scrape_configs"]
    assert job["authorization"]["credentials_file"]
    assert "credentials" not in job["authorization"]
    assert "params" not in job
    assert f'up{{job="{job["job_name"]}"}} == 0' in [rule["expr"] for rule in RULES]
    for name in SCRAPE["rule_files"]:
        assert (EXAMPLES / "prometheus" / name).is_file()
