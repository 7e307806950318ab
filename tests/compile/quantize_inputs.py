"""What the tests of INT8 graphs share: an input, frames and the tiny network, ready to quantize."""

import dataclasses

import numpy as np

from irstd.compile import quantize
from irstd.compile.opset import to_opset19
from irstd.compile.prepare import Prepared
from irstd.compile.rewrites import rewrite
from irstd.types import InputSpec


def make_spec(mean=(80.0,), std=(40.0,), size=32, **changes):
    values = {
        "height": size,
        "width": size,
        "scale": tuple(1 / s for s in std),
        "offset": tuple(-m / s for m, s in zip(mean, std, strict=True)),
        "pad_level": tuple(mean),
    }
    return InputSpec(**{**values, **changes})


def three_frames():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (32, 32), dtype=np.uint8) for _ in range(3)]


def prepare_tiny(model):
    model, affine = rewrite(model, 32, 32)
    offset = -80 / 40 * affine.scale[0] + affine.offset[0]
    spec = make_spec(scale=(affine.scale[0] / 40,), offset=(offset,))
    return Prepared(to_opset19(model), spec, had_sigmoid=False)


def take_one_channel_for_many(monkeypatch):
    """Let maps of one channel stand for wider ones."""
    monkeypatch.setattr(quantize, "FEWEST_CHANNELS", 1)
    form = dataclasses.replace(quantize.FORMS["nvidia"], fewest_inputs=1)
    monkeypatch.setitem(quantize.FORMS, "nvidia", form)
