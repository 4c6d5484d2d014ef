"""Prometheus as the guide sets it up: its token at a real hub, and what that opens."""

import re
from pathlib import Path

import pytest
import requests

from tests.hub.running_hub import wait_for

pytestmark = pytest.mark.hub

GUIDE = Path(__file__).parent.parent.parent / "docs" / "how-to" / "metrics.md"
TOKEN = "as-long-as-openssl-makes-it-or-nearly"


def _configuration(folder):
    """Return the guide's own lines, with the token in a file of the test's."""
    (block,) = re.findall(
        r"^```python\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE
    )
    file = folder / "gpuworkshop.token"
    file.write_text(f"{TOKEN}\n")
    assert block.count('"/etc/prometheus/gpuworkshop.token"') == 1
    return block.replace("/etc/prometheus/gpuworkshop.token", str(file))


def test_the_guides_token_scrapes_and_does_nothing_else(make_hub, tmp_path):
    hub = make_hub(
        service=True,
        workshop={"monitor": {"interval": "0.5s"}, "metrics": {"by_attendee": True}},
        early=_configuration(tmp_path),
    ).start()
    address = f"http://127.0.0.1:{hub.service_port}/services/gpuworkshop/"
    headers = {"Authorization": f"Bearer {TOKEN}"}

    def scraped():
        try:
            answer = requests.get(f"{address}metrics", headers=headers, timeout=20)
        except requests.ConnectionError:
            return ""  # the service is not up yet
        assert answer.ok, answer.text
        return answer.text if "gpuworkshop_hub_up 1.0" in answer.text else ""

    text = wait_for(scraped, why="the hub never reported")
    assert (
        len(re.findall(r"^gpuworkshop_device_up\{.*\} 1\.0$", text, re.MULTILINE)) == 4
    )
    assert "user=" not in text
    forgetting = requests.post(
        f"{address}api/v1/forget", json={"names": ["ann"]}, headers=headers, timeout=20
    )
    assert forgetting.status_code == 403
    of_the_hub = requests.get(
        f"http://127.0.0.1:{hub.port}/hub/api/users", headers=headers, timeout=20
    )
    assert of_the_hub.status_code == 403
