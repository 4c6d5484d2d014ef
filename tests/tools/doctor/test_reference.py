"""The doctor's checks in the documentation."""

from jupyterhub_gpuworkshop.tools.doctor.catalogue import CHECKS
from tests.test_docs import GENERATE


def test_every_check_is_in_the_reference_once() -> None:
    reference = GENERATE.doctor()
    for name, looks_at in CHECKS.items():
        assert reference.count(f"| `{name}` | {looks_at} |") == 1
