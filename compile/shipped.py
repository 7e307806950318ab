"""The weights that come with this package; neither torch nor onnx is needed to list them."""

from importlib import resources

from irstd.compile.networks import NETWORKS


def shipped_names() -> list[str]:
    """Return the networks whose weights come with this package."""
    return [name for name in NETWORKS if read_shipped(name) is not None]


def read_shipped(name: str) -> bytes | None:
    """Return the serialized plain graph of a network, of symbolic size; None if not shipped."""
    file = resources.files("irstd.compile.weights") / f"{name}.onnx"
    return file.read_bytes() if file.is_file() else None
