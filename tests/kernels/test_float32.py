import threading
from collections.abc import Iterator
from operator import attrgetter

import pytest
import torch

from audiopipe.kernels.float32 import full_float32

PRODUCTS, NETWORKS = ("cuda.matmul", "mkldnn.matmul"), ("cudnn.conv", "cudnn.rnn", "mkldnn.conv", "mkldnn.rnn")


def precisions(names: tuple[str, ...]) -> list[str]:
    return [attrgetter(name)(torch.backends).fp32_precision for name in names]


@pytest.fixture
def reduced_precision() -> Iterator[None]:
    """Set all switches to TF32."""
    saved = precisions(PRODUCTS + NETWORKS)
    for name in PRODUCTS + NETWORKS:
        attrgetter(name)(torch.backends).fp32_precision = "tf32"
    yield
    for name, precision in zip(PRODUCTS + NETWORKS, saved, strict=True):
        attrgetter(name)(torch.backends).fp32_precision = precision


@pytest.mark.parametrize(("networks", "names"), [(False, PRODUCTS), (True, PRODUCTS + NETWORKS)])
@pytest.mark.usefixtures("reduced_precision")
def test_reduced_precision_is_off_inside_and_restored_after(networks: bool, names: tuple[str, ...]) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with full_float32(networks=networks):
            entered.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    with full_float32(networks=networks):
        assert precisions(names) == ["ieee"] * len(names)
    assert precisions(names) == ["ieee"] * len(names)  # the other thread is still inside the block
    leave.set()
    thread.join()
    assert precisions(names) == ["tf32"] * len(names)


@pytest.mark.usefixtures("reduced_precision")
def test_networks_keep_their_precision_by_default() -> None:
    with full_float32():
        assert precisions(NETWORKS) == ["tf32"] * len(NETWORKS)
