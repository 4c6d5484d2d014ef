"""Hub and service of different versions: an upgrade restarts one after the other."""

import json

from jupyterhub_gpuworkshop.core.announcements import Announcement
from jupyterhub_gpuworkshop.core.lock_out import Locked
from jupyterhub_gpuworkshop.core.wire import (
    REPLY,
    REPORT,
    Reply,
    Report,
    Unlock,
)

_REPORT_OF_BEFORE = {
    "hub_id": "hub",
    "sent_at": 1.0,
    "leases": [],
    "servers": [],
    "refusals": [],
    "events": [],
    "seen": [],
}
_REPLY_OF_BEFORE = {
    "inventory": None,
    "uses": [],
    "acknowledged": 7,
    "notices": [],
    "drained": [],
}


def test_an_earlier_hub_says_nothing_of_lock_outs():
    report = REPORT.validate_json(json.dumps(_REPORT_OF_BEFORE))
    assert report.locked is None
    assert report.unlocked == ()


def test_an_earlier_service_announces_nothing():
    reply = REPLY.validate_json(json.dumps(_REPLY_OF_BEFORE))
    assert reply.acknowledged == 7
    assert reply.announced == ()
    assert reply.unlocks == ()


def test_what_a_later_version_adds_does_no_harm():
    later = {"of_a_later_version": {"x": [1]}}
    assert REPORT.validate_json(json.dumps({**_REPORT_OF_BEFORE, **later})) == Report(
        hub_id="hub", sent_at=1.0
    )
    locked = [{"name": "ann", "address": "", "until": 5.0, **later}]
    grown = json.dumps({**_REPORT_OF_BEFORE, "locked": locked})
    assert REPORT.validate_json(grown).locked == (
        Locked(name="ann", address="", until=5.0),
    )
    assert REPLY.validate_json(json.dumps({**_REPLY_OF_BEFORE, **later})) == Reply(
        acknowledged=7
    )


def test_what_is_said_arrives():
    report = Report(
        hub_id="hub",
        sent_at=1.0,
        locked=(Locked(name="joining ann", address="192.0.2.7", until=5.0),),
        unlocked=("1", "2"),
    )
    assert REPORT.validate_json(REPORT.dump_json(report)) == report
    reply = Reply(
        announced=(Announcement(text="a\nb <c>", at=1.0, until=None, by="olga"),),
        unlocks=(Unlock(id="1", name="ann", by="olga"),),
    )
    assert REPLY.validate_json(REPLY.dump_json(reply)) == reply
    unread = Reply(announced=None, drained=None)
    assert REPLY.validate_json(REPLY.dump_json(unread)) == unread
