"""The snapshot as numbers for Prometheus: what is in them, and what never is."""

import re
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice, LeaseState
from jupyterhub_gpuworkshop.core.notices import Notice, NoticeKind
from jupyterhub_gpuworkshop.core.snapshot import (
    DeviceSample,
    Holder,
    HolderKind,
    KernelState,
    KernelView,
    LeaseUse,
    ProcessId,
    Snapshot,
)
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import Event, EventKind, Refusal, Report
from jupyterhub_gpuworkshop.service.metric_catalogue import (
    BY_ATTENDEE,
    TOTALS,
    MetricKind,
)
from jupyterhub_gpuworkshop.service.metrics import Facts, Metrics
from jupyterhub_gpuworkshop.service.tally import Tally

NASTY = 'ada"} <b>&\\\nevil 1'
NAMES = (NASTY, "ada", "evil", "bob", "secret.ipynb", "train.py", "kernel-of-")


def lease(lease_id, user, *uuids, server="", **more):
    return Lease(
        id=lease_id,
        user=user,
        server=server,
        share="1/5" if uuids else "cpu",
        granted_at=1.0,
        devices=tuple(
            LeasedDevice(
                uuid=uuid, label=uuid[-1], memory_bytes=3 * GIB, total_bytes=16 * GIB
            )
            for uuid in uuids
        ),
        **more,
    )


def holder(pid, kind, memory_bytes, user="", device="GPU-0"):
    return Holder(
        process=ProcessId(pid=pid, started=1),
        device=device,
        memory_bytes=memory_bytes,
        utilisation=None,
        kind=kind,
        command="python train.py",
        user=user,
    )


def kernel(user, state, **more):
    return KernelView(
        lease_id="one",
        user=user,
        server="",
        kernel_id=f"kernel-of-{user}",
        notebook="secret.ipynb",
        state=state,
        **more,
    )


LEASES = (
    lease("one", NASTY, "GPU-0"),
    lease("two", NASTY, "GPU-0", state=LeaseState.QUARANTINED),
    lease("three", "bob", "GPU-0", "GPU-1", server="big"),
    lease("four", "bob"),
)
SNAPSHOT = Snapshot(
    taken_at=1_700_000_000.5,
    inventory=Inventory(
        source="simulated",
        devices=(
            Device(uuid="GPU-0", label="0", name="NVIDIA H200", memory_bytes=16 * GIB),
            Device(uuid="GPU-1", label="1", name="", memory_bytes=8 * GIB, lost=True),
        ),
    ),
    samples=(
        DeviceSample(
            uuid="GPU-0",
            memory_total_bytes=16 * GIB,
            memory_used_bytes=9 * GIB,
            memory_free_bytes=6 * GIB,
            utilisation=0.25,
            temperature_celsius=61.0,
        ),
    ),
    listed=frozenset({"GPU-0"}),
    holders=(
        holder(1, HolderKind.KERNEL, 4 * GIB, NASTY),
        holder(2, HolderKind.KERNEL, 1 * GIB, "bob"),
        holder(3, HolderKind.FOREIGN, None),
    ),
    leases=LEASES,
    uses=(
        LeaseUse(
            lease_id="one", memory_bytes={"GPU-0": 4 * GIB}, over_bytes={"GPU-0": GIB}
        ),
        LeaseUse(lease_id="two", memory_bytes={"GPU-0": 0}),
        LeaseUse(
            lease_id="three",
            memory_bytes={"GPU-0": GIB},
            unknown=frozenset({"GPU-1"}),
            short_bytes={"GPU-0": 2 * GIB},
            parked_bytes={"GPU-1": 5 * GIB},
        ),
        LeaseUse(lease_id="four"),
    ),
    kernels=(
        kernel(NASTY, KernelState.BUSY, pinned_until=9.0),
        kernel("bob", KernelState.IDLE, parked_at=1.0, parked_bytes=GIB),
        kernel("bob", KernelState.IDLE),
    ),
    needed=True,
    notices=(
        Notice(
            id="n", kind=NoticeKind.OVER_SHARE, user="bob", text="bob!", given_at=1.0
        ),
    ),
    drained=frozenset({"GPU-0"}),
    server_verdicts={"one": f"{NASTY} uses it"},
    problems=("The server of bob is unknown",),
)
REPORT = Report(
    hub_id="hub",
    sent_at=1.0,
    leases=LEASES,
    refusals=(Refusal(user="bob", server="", share="1/5", at=1.0),),
)


def facts(**more):
    given = {
        "snapshot": SNAPSHOT,
        "rounds": 7,
        "report": REPORT,
        "hub_problem": "",
        "asked": 3,
        "unanswered": 1,
        "history_problem": "",
        "tally": Tally(),
        "version": "1.2",
    }
    return Facts(**given | more)


def told(by_attendee=False, encode=generate_latest, **more):
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Metrics(facts(**more), by_attendee=by_attendee))
    return encode(registry).decode()


def values(text, name, **labels):
    """Return the values of a metric by its labels, those that are given left out."""
    return {
        tuple(v for k, v in sample.labels.items() if k not in labels): sample.value
        for family in read(text)
        for sample in family.samples
        if sample.name == f"gpuworkshop_{name}"
        and labels.items() <= sample.labels.items()
    }


def value(text, name, **labels):
    (only,) = values(text, name, **labels).values()
    return only


@pytest.mark.parametrize("by_attendee", [False, True])
@pytest.mark.parametrize(
    ("encode", "parse"), [(generate_latest, read), (openmetrics, read_openmetrics)]
)
def test_every_series_is_told_once_and_reads_back(by_attendee, encode, parse):
    text = told(by_attendee, encode)
    series = [
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in parse(text)
        for sample in family.samples
    ]
    assert len(series) == len(set(series)) > 60


def test_with_everything_there_every_metric_is_told_with_its_labels():
    text = told(by_attendee=True)
    found = {}
    for family in read(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).add(frozenset(sample.labels))
    assert found == {
        x.name: {frozenset(x.labels)}
        for x in (*TOTALS, *BY_ATTENDEE)
        # This device's driver tells no power.
        if x.name != "gpuworkshop_device_power_watts"
    }


def test_nobody_is_named_without_the_switch():
    text = told()
    for name in NAMES:
        assert name not in text
    assert "user=" not in text
    assert not any(x.names_attendees for x in TOTALS)
    assert all(x.names_attendees for x in BY_ATTENDEE)


def test_a_name_with_quotes_markup_and_newlines_stays_one_label():
    text = told(by_attendee=True)
    users = {
        sample.labels["user"]
        for family in read(text)
        for sample in family.samples
        if "user" in sample.labels
    }
    assert users == {NASTY, "bob"}
    assert not [line for line in text.splitlines() if line.startswith("evil")]


def test_notebooks_kernels_commands_and_sentences_are_never_told():
    text = told(by_attendee=True)
    for word in ("secret.ipynb", "kernel-of-", "train.py", "uses it", "bob!"):
        assert word not in text
    assert "is unknown" not in text


def test_the_readings_of_a_device_are_told_in_base_units():
    text = told()
    here = {"device": "GPU-0", "gpu": "0", "model": "NVIDIA H200"}
    for name, expected in {
        "device_memory_total_bytes": 16 * GIB,
        "device_memory_used_bytes": 9 * GIB,
        "device_memory_free_bytes": 6 * GIB,
        "device_memory_promised_bytes": 9 * GIB,
        "device_memory_short_bytes": 2 * GIB,
        "device_memory_parked_bytes": 0,
        "device_utilization_ratio": 0.25,
        "device_temperature_celsius": 61,
        "device_up": 1,
        "device_lost": 0,
        "device_drained": 1,
        "leases_over_share": 1,
    }.items():
        assert value(text, name, **here) == expected, name
    assert values(text, "leases", **here) == {("active",): 2, ("quarantined",): 1}
    assert values(text, "leases_without_device") == {
        ("active",): 1,
        ("quarantined",): 0,
    }
    assert values(text, "holders", **here)[("kernel",)] == 2
    assert values(text, "holders_memory_bytes", **here)[("kernel",)] == 5 * GIB


def test_a_reading_that_is_unknown_is_absent_and_never_0():
    text = told()
    assert "gpuworkshop_device_power_watts" not in text
    # A process whose memory the driver does not tell.
    here = values(text, "holders_memory_bytes", device="GPU-0", gpu="0")
    assert not any("foreign" in labels for labels in here)
    lost = {"device": "GPU-1", "gpu": "1", "model": ""}
    assert value(text, "device_up", **lost) == 0
    assert value(text, "device_lost", **lost) == 1
    assert value(text, "device_memory_total_bytes", **lost) == 8 * GIB
    assert value(text, "device_memory_parked_bytes", **lost) == 5 * GIB
    for name in (
        "device_memory_used_bytes",
        "device_memory_free_bytes",
        "device_utilization_ratio",
        "device_temperature_celsius",
        "device_memory_short_bytes",
        "leases_over_share",
        "holders",
        "holders_memory_bytes",
    ):
        assert values(text, name, **lost) == {}, name


def test_what_a_driver_does_not_tell_of_a_process_is_no_0_of_its_attendee():
    uses = tuple(
        replace(use, unknown=frozenset({"GPU-0"})) if use.lease_id == "two" else use
        for use in SNAPSHOT.uses
    )
    text = told(True, snapshot=replace(SNAPSHOT, uses=uses))
    for name in ("used", "over", "short"):
        labels = values(text, f"attendee_memory_{name}_bytes", device="GPU-0", gpu="0")
        assert list(labels) == [("big", "bob")]
    shares = values(text, "attendee_memory_share_bytes", device="GPU-0", gpu="0")
    assert shares["", NASTY] == 6 * GIB


def test_a_driver_that_is_gone_leaves_no_reading_behind():
    uses = tuple(
        replace(x, unknown=frozenset({"GPU-0", "GPU-1"})) for x in SNAPSHOT.uses
    )
    gone = replace(SNAPSHOT, samples=(), listed=frozenset(), holders=(), uses=uses)
    text = told(by_attendee=True, snapshot=gone)
    assert value(text, "driver_up") == 0
    assert set(values(text, "device_up").values()) == {0}
    for name in ("device_memory_used", "leases_over", "holders", "memory_short"):
        assert f"gpuworkshop_{name}" not in text
    for name in ("used", "over", "short"):
        assert f"gpuworkshop_attendee_memory_{name}" not in text
    assert "gpuworkshop_attendee_memory_share_bytes{" in text


def test_before_the_first_look_nothing_is_claimed():
    text = told(
        snapshot=Snapshot(taken_at=1.0, problems=("Nothing yet.",)),
        rounds=0,
        report=Report(hub_id="", sent_at=0.0),
    )
    found = {s.name for family in read(text) for s in family.samples}
    assert {name.removeprefix("gpuworkshop_") for name in found} == {
        "build_info",
        "snapshots_total",
        "problems",
        "history_on_disk",
        "events_total",
        "reclaimed_bytes_total",
    }


def test_a_hub_that_never_reported_makes_no_leases_zero():
    bare = replace(SNAPSHOT, leases=(), uses=(), kernels=())
    text = told(by_attendee=True, snapshot=bare, report=Report(hub_id="", sent_at=0.0))
    for name in ("hub_up", "leases", "waiting", "kernels", "servers", "attendee"):
        assert f"\ngpuworkshop_{name}" not in text
    assert "gpuworkshop_device_memory_promised_bytes" not in text
    silent = told(
        snapshot=bare,
        report=Report(hub_id="", sent_at=0.0),
        hub_problem="It is silent.",
    )
    assert value(silent, "hub_up") == 0


def test_a_hub_that_fell_silent_leaves_its_leases_and_nothing_about_who_waits():
    text = told(by_attendee=True, hub_problem="The hub has been silent for 30 s.")
    assert value(text, "hub_up") == 0
    assert value(text, "leases", device="GPU-0", state="active") == 2
    for name in ("waiting", "kernels", "servers", "attendee_kernels"):
        assert f"\ngpuworkshop_{name}" not in text
    assert value(told(), "hub_up") == 1
    assert value(told(), "waiting") == 1
    assert values(told(), "kernels") == {
        ("idle",): 2,
        ("busy",): 1,
        ("starting",): 0,
        ("unknown",): 0,
    }


def test_two_leases_of_one_server_are_one_series():
    text = told(by_attendee=True)
    hers = {"user": NASTY, "server": "", "device": "GPU-0", "gpu": "0"}
    assert value(text, "attendee_memory_share_bytes", **hers) == 6 * GIB
    assert value(text, "attendee_memory_used_bytes", **hers) == 4 * GIB
    assert value(text, "attendee_memory_over_bytes", **hers) == GIB
    big = values(text, "attendee_memory_used_bytes", user="bob", server="big")
    assert list(big.values()) == [GIB]
    assert value(text, "attendee_kernels", user="bob", server="", state="idle") == 2


def reclaimed(freed_bytes, done):
    return Event(
        at=1.0,
        kind=EventKind.KERNEL_RECLAIMED,
        user="bob",
        details={"freed_bytes": freed_bytes, "done": done, "action": "park"},
    )


def test_counters_begin_at_0_for_every_kind_and_only_rise():
    tally = Tally()
    kinds = values(told(tally=tally), "events_total")
    assert kinds == {(kind.value,): 0 for kind in EventKind}
    before = 0.0
    for freed_bytes, done in ((3 * GIB, "restart"), (-5, "park"), (None, ""), (1, "?")):
        tally.count(reclaimed(freed_bytes, done))
        total = sum(values(told(tally=tally), "reclaimed_bytes_total").values())
        assert total >= before
        before = total
    text = told(tally=tally)
    # What was done, and not what was wanted.
    assert values(text, "reclaimed_bytes_total") == {
        ("park",): 0,
        ("restart",): 3 * GIB,
        ("stop_kernel",): 0,
    }
    assert value(text, "events_total", kind="kernel_reclaimed") == 4


def test_names_and_helps_are_as_the_field_has_them():
    for metric in (*TOTALS, *BY_ATTENDEE):
        assert re.fullmatch(r"gpuworkshop_[a-z]+(_[a-z]+)*", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is MetricKind.COUNTER)
        assert metric.name.endswith("_info") == (metric.kind is MetricKind.INFO)
        assert metric.help.endswith(".")
        assert len(metric.help.split()) >= 5 or "memory" in metric.help.lower()
    names = [metric.name for metric in (*TOTALS, *BY_ATTENDEE)]
    assert len(names) == len(set(names))
