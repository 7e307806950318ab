import pytest

from irstd import devices
from irstd.devices import Device
from irstd.errors import UsageError
from irstd.targets import TARGETS

DEVICES = {target.name: target.device for target in TARGETS.values() if target.device}
QUOTES = [(name, quote) for name, device in DEVICES.items() for quote in device.quoted]

# Dense peaks as whitepapers print them, of cards that are no targets, for the rates of their
# generation: NVIDIA GA102 v2.1, table 2; Ada v2.1, appendix A; RTX Blackwell v1.1, appendix A.
WHITEPAPERS = [
    ("RTX 3080", 68, 1710, {"fp32": 29.8, "fp16": 119.0, "int8": 238.0}),
    ("RTX 4090", 128, 2520, {"fp32": 82.6, "fp16": 330.3, "int8": 660.6}),
    ("RTX 5090", 170, 2407, {"fp32": 104.8, "fp16": 419.0, "int8": 838.0}),
]


def test_every_gpu_target_has_figures() -> None:
    gpus = [name for name, target in TARGETS.items() if target.compute_capability]
    assert list(DEVICES) == gpus
    assert TARGETS["cpu"].device is None


@pytest.mark.parametrize(("name", "quote"), QUOTES)
def test_peaks_from_sms_and_clocks_are_what_the_vendor_quotes(name, quote) -> None:
    device = DEVICES[name]
    mode = device.mode(quote.mode)
    computed = quote.times_int8 * device.peak_tops("int8", mode)
    if quote.counts_dla:
        computed += 2 * device.dla_int8_tops(mode)  # sparse
    # Vendors round; 625 MHz of Orin Nano give 41 for 40.
    assert computed == pytest.approx(quote.tops, rel=0.03)


@pytest.mark.parametrize(("card", "sms", "mhz", "quoted"), WHITEPAPERS)
def test_rates_of_geforce_sms_are_those_of_the_whitepapers(card, sms, mhz, quoted) -> None:
    rates = devices.RTX_3060.rates
    for precision, tops in quoted.items():
        computed = sms * mhz * 1e6 * getattr(rates, precision) / 1e12
        assert computed == pytest.approx(tops, rel=0.01), (card, precision)


def test_the_agx_orin_does_what_its_technical_brief_says_in_fp32() -> None:
    device = devices.AGX_ORIN_64GB
    assert device.peak_tops("fp32", device.mode("MAXN")) == pytest.approx(5.3, rel=0.01)
    assert device.peak_tops("int8", device.mode("MAXN")) == pytest.approx(170 / 2, rel=0.01)


@pytest.mark.parametrize("name", DEVICES)
def test_a_device_is_consistent(name) -> None:
    device = DEVICES[name]
    assert device.memory_gb == TARGETS[name].memory_gb or TARGETS[name].memory_gb is None
    assert set(device.sources) <= documented_sources()
    fastest = device.power_modes[0]
    for mode in device.power_modes:
        assert 0 < mode.sms <= fastest.sms
        assert 0 < mode.gpu_mhz <= fastest.gpu_mhz
        assert 0 < mode.bandwidth_gb_s <= fastest.bandwidth_gb_s
        assert len(mode.dla_mhz) == device.dla_cores
        assert device.peak_tops("int8", mode) <= device.peak_tops("int8", fastest)
    assert sum(mode.is_default for mode in device.power_modes) <= 1
    assert len({mode.name for mode in device.power_modes}) == len(device.power_modes)


def documented_sources() -> set[str]:
    lines = (devices.__doc__ or "").splitlines()
    return {line.split()[0] for line in lines if line.startswith("    ") and line[4] != " "}


def test_only_agx_orin_and_orin_nx_have_dla() -> None:
    cores = {name: device.dla_cores for name, device in DEVICES.items() if device.dla_cores}
    assert cores == {
        "jetson-orin-nx": 2,
        "jetson-orin-nx-8gb": 1,
        "jetson-agx-orin": 2,
        "jetson-agx-orin-32gb": 2,
    }


def test_an_unknown_power_mode_answers_with_the_list() -> None:
    device: Device = devices.ORIN_NANO_8GB
    assert device.mode() is device.power_modes[0]
    assert device.mode("7W").gpu_mhz == 408
    with pytest.raises(UsageError, match="no power mode '50W'; one of MAXN_SUPER, 25W, 15W, 7W"):
        device.mode("50W")
