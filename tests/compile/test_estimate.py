import dataclasses

import pytest

from irstd import devices
from irstd.compile.estimate import (
    Machine,
    estimate_cost,
    estimate_layer,
    machine_of,
    usable_share,
)
from irstd.compile.estimate_layers import Cost, Layer

LAYER = Layer(
    "conv", "Conv", ("conv",), ("Conv",), "fp32", macs=1_000_000, operations=0, read_bytes=1000,
    weight_bytes=0, write_bytes=1000, reduction=64, in_channels=64, out_channels=64, pixels=4096,
)  # fmt: skip
MACHINE = Machine("m", {"fp32": 1e9}, 1e9, 1e9, 1e-6, {"fp32": (1, 1)})


def test_the_slower_of_arithmetic_and_memory_and_the_start_make_a_layer() -> None:
    found = estimate_layer(LAYER, MACHINE)
    assert found.usable == 1
    assert (found.compute_s, found.memory_s) == pytest.approx((1e-3, 2e-6))
    assert found.seconds == pytest.approx(1.001e-3)
    assert found.bottleneck == "compute"
    moving = dataclasses.replace(LAYER, macs=0, operations=5000, read_bytes=3_000_000)
    found = estimate_layer(moving, MACHINE)
    assert found.seconds == pytest.approx(3.002e-3, rel=1e-3)
    assert found.bottleneck == "memory"
    tiny = dataclasses.replace(LAYER, macs=10, read_bytes=10, write_bytes=10)
    assert estimate_layer(tiny, MACHINE).bottleneck == "launch"


@pytest.mark.parametrize(
    ("change", "machine", "share"),
    [
        ({}, {}, 1.0),
        ({}, {"vectors": {"fp32": (48, 48)}}, (64 / 96) ** 2),  # padded on both sides
        ({"in_channels": 1}, {"vectors": {"fp32": (16, 8)}}, 1 / 16),
        ({"pixels": 64}, {"processors": 8, "tile": (64, 32)}, 2 / 8),  # two tiles, eight processors
        ({"pixels": 640}, {"processors": 16, "tile": (64, 64)}, 10 / 16),
        ({"pixels": 64 * 9}, {"processors": 8, "tile": (64, 64)}, 9 / 16),  # a second round for one
        ({"reduction": 9}, {"idle_products": 27.0}, 9 / 36),
        ({}, {"sustained": 0.8}, 0.8),
        ({"macs": 0}, {"sustained": 0.8}, 1.0),  # no products, nothing to lose
    ],
)
def test_what_a_shape_can_use_of_the_peak(change, machine, share) -> None:
    layer = dataclasses.replace(LAYER, **change)
    assert usable_share(layer, dataclasses.replace(MACHINE, **machine)) == pytest.approx(share)


def test_values_that_fit_the_cache_move_at_its_rate() -> None:
    near = dataclasses.replace(MACHINE, cache_bytes=2000, cache_bandwidth=4e9)
    assert estimate_layer(LAYER, near).memory_s == pytest.approx(0.5e-6)
    far = dataclasses.replace(near, cache_bytes=1999)
    assert estimate_layer(LAYER, far).memory_s == pytest.approx(2e-6)
    unpublished = dataclasses.replace(near, cache_bandwidth=0.0)
    assert estimate_layer(LAYER, unpublished).memory_s == pytest.approx(2e-6)


def test_the_total_is_the_sum_and_the_floor_lies_below_it() -> None:
    cost = Cost((LAYER, LAYER), compulsory_bytes=3000, unknown={"Mish": 2})
    found = estimate_cost(cost, MACHINE)
    assert found.seconds == pytest.approx(2 * estimate_layer(LAYER, MACHINE).seconds)
    assert found.floor_s == pytest.approx(2e-3)
    assert found.unknown == {"Mish": 2}
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.bottleneck == "compute"
    heavy = estimate_cost(Cost((), 5_000_000, {}), MACHINE)
    assert heavy.floor_s == pytest.approx(5e-3)
    cached = dataclasses.replace(MACHINE, cache_bytes=4_000_000)
    assert estimate_cost(Cost((), 5_000_000, {}), cached).floor_s == pytest.approx(1e-3)


DEVICES = [value for value in vars(devices).values() if isinstance(value, devices.Device)]


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.product)
def test_slower_clocks_never_give_a_shorter_estimate(device) -> None:
    layers = [
        dataclasses.replace(LAYER, precision=precision, macs=10**8, read_bytes=10**6)
        for precision in ("fp32", "fp16", "int8")
    ]
    cost = Cost(tuple(layers), 10**6, {})
    fastest, *others = (machine_of(device, mode) for mode in device.power_modes)
    for slower in others:
        assert estimate_cost(cost, slower).seconds >= estimate_cost(cost, fastest).seconds
        assert estimate_cost(cost, slower).floor_s >= estimate_cost(cost, fastest).floor_s


def test_a_gpu_as_a_machine() -> None:
    mode = devices.ORIN_NANO_8GB.mode("15W")
    machine = machine_of(devices.ORIN_NANO_8GB, mode)
    assert machine.macs_per_s["int8"] == pytest.approx(10.24e12)  # 20 dense TOPS
    assert machine.macs_per_s["fp16"] == pytest.approx(5.12e12)
    assert machine.bandwidth == pytest.approx(68.3e9)
    assert machine.processors == 8
    assert machine.overhead_s == pytest.approx(0.5e-6 * 1380 / 625)
    assert machine.macs_per_s["fp32"] == pytest.approx(8 * 128 * 625e6)  # CUDA cores, no TF32
    tensor_cores = machine_of(devices.ORIN_NANO_8GB, mode, tf32=True)
    assert tensor_cores.macs_per_s["fp32"] == pytest.approx(2.56e12)  # half of FP16
    assert tensor_cores.vectors["fp32"] == (8, 8)
    assert machine.vectors["fp32"] == (1, 1)
