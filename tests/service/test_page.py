"""What stands on the page, for states that no simulated room is brought into."""

from dataclasses import replace

from bs4 import BeautifulSoup

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice
from jupyterhub_gpuworkshop.core.snapshot import (
    DeviceSample,
    KernelState,
    KernelView,
    LeaseUse,
    Snapshot,
)
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.service.web.auth import Viewer
from jupyterhub_gpuworkshop.service.web.page import _JINJA
from jupyterhub_gpuworkshop.service.web.views import snapshot_view

ORGANISER = Viewer(name="olga", attendee=None)
PART = LeasedDevice(uuid="GPU-0", label="0", memory_bytes=4 * GIB, total_bytes=16 * GIB)


def lease(user):
    return Lease(
        id=user, user=user, server="", share="1/4", devices=(PART,), granted_at=1.0
    )


SNAPSHOT = Snapshot(
    inventory=Inventory(
        devices=(Device(uuid="GPU-0", label="0", name="H100", memory_bytes=16 * GIB),)
    ),
    samples=(
        DeviceSample(
            uuid="GPU-0",
            memory_total_bytes=16 * GIB,
            memory_used_bytes=15 * GIB,
            memory_free_bytes=GIB,
        ),
    ),
    leases=(lease("ada"), lease("bea"), lease("cem")),
    uses=(
        LeaseUse(lease_id="ada", over_bytes={"GPU-0": 2 * GIB}),
        LeaseUse(lease_id="bea", short_bytes={"GPU-0": 3 * GIB}),
        LeaseUse(lease_id="cem", parked_bytes={"GPU-0": GIB}),
    ),
    kernels=(
        KernelView(
            lease_id="cem",
            user="cem",
            server="",
            kernel_id="k",
            state=KernelState.IDLE,
            parked_bytes=GIB,
            verdict="Paused, variables kept.",
        ),
    ),
)


def page(snapshot, viewer=ORGANISER):
    """Return the page as its reader has it: each row's cells by attendee."""
    text = _JINJA.get_template("page.html").render(
        prefix="/services/gpuworkshop/",
        hub_home="/hub/home",
        viewer=viewer,
        refresh_seconds=5,
        view=snapshot_view(snapshot, viewer, 1.0),
        why_no_devices="",
        events=[],
        labels={"GPU-0": "0"},
        no_hard_limit={},
        is_old=False,
        notices=[],
        said="",
        xsrf="x",
        may_pin=True,
        keep_seconds=7200,
    )
    soup = BeautifulSoup(text, "html.parser")
    return soup, {
        row.th.text.strip(): [" ".join(x.text.split()) for x in row.find_all("td")]
        for row in soup.select("section[aria-labelledby=leases] tbody tr")
    }


def test_who_exceeds_who_runs_short_and_who_is_paused_stands_out():
    soup, shares = page(SNAPSHOT)
    assert shares["ada"][-1] == "in use, 2 GiB above the share"
    assert shares["bea"][-1] == "in use, 3 GiB short"
    assert shares["cem"][-1] == "in use, 1 GiB paused"
    assert [x.text for x in soup.select(".bad")] == [
        "2 GiB above the share",
        "3 GiB short",
    ]
    assert "would not be had now" in soup.text
    (kernel,) = soup.select("section[aria-labelledby=kernels] tbody tr")
    assert kernel.find("td", attrs={"data-label": "State"}).text == "paused"


def test_nothing_stands_out_where_all_is_well():
    soup, shares = page(replace(SNAPSHOT, uses=(), kernels=()))
    assert [cells[-1] for cells in shares.values()] == ["in use"] * 3
    assert soup.select(".bad") == []
    assert "would not be had now" not in soup.text
