"""What is installed: /etc/nv_tegra_release, dpkg, and the version file of CUDA."""

import json
import re
from collections.abc import Mapping

from irstd.runtime.machine.tools import Ask, ask

_RELEASE = re.compile(
    r"^# R(\d{1,3}) \(release\), REVISION: (\d{1,3})(?:\.(\d{1,3}))?", re.MULTILINE
)
_ROW = re.compile(r"(\S{1,128})\t([!-~]{1,128})\t(\S{2,3})")
# The first is there where TensorRT can run, the second where Python can use it, the third where a
# plugin can be compiled.
PACKAGES = (
    "libnvinfer10", "libnvinfer11", "libnvinfer8", "python3-libnvinfer", "libnvinfer-headers-dev",
    "libnvonnxparsers10", "nvidia-jetpack", "nvidia-l4t-core",
)  # fmt: skip


def parse_l4t_release(text: str) -> tuple[int, int, int] | None:
    """Read /etc/nv_tegra_release: (36, 4, 3) of "# R36 (release), REVISION: 4.3, ..."."""
    found = _RELEASE.search(text[:4096])
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def installed_packages(run: Ask = ask) -> Mapping[str, str]:
    """Return the versions of those of PACKAGES that dpkg says are installed."""
    form = "${Package}\t${Version}\t${db:Status-Abbrev}\n"
    # It fails where one of them is unknown, and lists the others all the same.
    return parse_dpkg(run(["dpkg-query", "-W", "-f", form, *PACKAGES]).text)


def parse_dpkg(text: str) -> dict[str, str]:
    """Read rows of package, version and status; those that are not installed are left out."""
    rows = (_ROW.match(line) for line in text.splitlines())
    return {
        row[1].partition(":")[0]: row[2] for row in rows if row and row[3].startswith(("ii", "hi"))
    }


def parse_cuda_version(text: str) -> str | None:
    """Read /usr/local/cuda/version.json: "12.6.11"; None where it is not what NVIDIA writes."""
    try:
        version = json.loads(text)["cuda"]["version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return version if isinstance(version, str) and re.fullmatch(r"[\d.]{1,32}", version) else None
