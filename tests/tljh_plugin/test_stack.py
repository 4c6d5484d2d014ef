"""Which wheels: the driver's CUDA, the hardware's limits, and the organiser's names."""

import pytest

from tljh_plugin.stack import Driver, plan

_T4 = Driver(cuda=(13, 2), capabilities=((7, 5),))
_OLD_DRIVER = Driver(cuda=(12, 4), capabilities=((8, 0),))


def _arguments(name: str, driver: Driver) -> tuple[str, ...]:
    (call,) = plan([name], driver).calls
    return call.arguments


@pytest.mark.parametrize(
    ("driver", "major"),
    [
        (Driver(), None),
        (Driver(cuda=(11, 8), capabilities=((8, 0),)), None),
        (Driver(cuda=(12, 0)), 12),
        (_OLD_DRIVER, 12),
        (_T4, 13),
        (Driver(cuda=(13, 0)), 13),
        # A V100 under the newest driver: CUDA 13 has nothing for it.
        (Driver(cuda=(13, 2), capabilities=((9, 0), (7, 0))), 12),
    ],
)
def test_the_oldest_gpu_and_the_driver_decide(
    driver: Driver, major: int | None
) -> None:
    assert driver.major == major


@pytest.mark.parametrize(
    ("name", "for_12", "for_13"),
    [
        ("cupy", ("cupy-cuda12x[ctk]",), ("cupy-cuda13x[ctk]",)),
        ("CuPy>=14", ("cupy-cuda12x[ctk]>=14",), ("cupy-cuda13x[ctk]>=14",)),
        ("jax==0.10.2", ("jax[cuda12]==0.10.2",), ("jax[cuda13]==0.10.2",)),
        ("numba-cuda", ("numba-cuda[cu12]",), ("numba-cuda[cu13]",)),
        ("tensorflow", ("tensorflow[and-cuda]",), ("tensorflow[and-cuda]",)),
        (
            "rapids",
            ("--extra-index-url=https://pypi.nvidia.com", "cudf-cu12", "cuml-cu12"),
            ("--extra-index-url=https://pypi.nvidia.com", "cudf-cu13", "cuml-cu13"),
        ),
        (
            "cudf==26.10.*",
            ("--extra-index-url=https://pypi.nvidia.com", "cudf-cu12==26.10.*"),
            ("--extra-index-url=https://pypi.nvidia.com", "cudf-cu13==26.10.*"),
        ),
        # Chosen by the organiser, or not ours to choose.
        ("jax[cuda12]", ("jax[cuda12]",), ("jax[cuda12]",)),
        ("scikit-learn==1.7.2", ("scikit-learn==1.7.2",), ("scikit-learn==1.7.2",)),
        ("cupy-cuda12x", ("cupy-cuda12x",), ("cupy-cuda12x",)),
        ("torch @ https://x.org/t.whl",) * 1 + (("torch @ https://x.org/t.whl",),) * 2,
    ],
)
def test_each_name_becomes_the_wheel_for_this_cuda(
    name: str, for_12: tuple[str, ...], for_13: tuple[str, ...]
) -> None:
    assert _arguments(name, _OLD_DRIVER) == for_12
    assert _arguments(name, _T4) == for_13


@pytest.mark.parametrize(
    ("driver", "index"),
    [
        (_T4, ()),
        (Driver(cuda=(13, 0)), ("--index-url=https://download.pytorch.org/whl/cu130",)),
        (_OLD_DRIVER, ("--index-url=https://download.pytorch.org/whl/cu126",)),
        (
            Driver(cuda=(13, 2), capabilities=((7, 0),)),
            ("--index-url=https://download.pytorch.org/whl/cu126",),
        ),
        (
            Driver(cuda=(12, 8), capabilities=((12, 0),)),
            ("--index-url=https://download.pytorch.org/whl/cu128",),
        ),
    ],
)
def test_pytorch_and_its_kin_come_from_one_index_in_one_run(
    driver: Driver, index: tuple[str, ...]
) -> None:
    (call,) = plan(["torch==2.14.0", "torchvision"], driver).calls
    assert call.arguments == (*index, "torch==2.14.0", "torchvision")


def test_without_a_driver_plain_names_are_installed_and_the_rest_is_skipped() -> None:
    made = plan(["torch", "pandas", "cupy"], Driver(problem="No driver."))
    assert [call.arguments for call in made.calls] == [("pandas",)]
    assert made.skipped == ("torch", "cupy")
    assert made.reason == "No driver."


def test_a_driver_that_is_too_old_is_told_so() -> None:
    made = plan(["torch"], Driver(cuda=(11, 4)))
    assert made.skipped == ("torch",)
    assert "CUDA 11.4" in made.reason
    assert "newer driver" in made.reason
