"""Optional packages."""

import sys
from importlib import import_module
from typing import Any


def import_extra(name: str, *, extra: str = "export") -> Any:
    """Imports a package of an extra.

    Raises:
        ValueError: it is not installed.
    """
    # OpenVINO reports its use over the network as soon as it is imported, without asking; without this it cannot
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as where it is not installed
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(f"{name.split('.')[0]} is needed ({error}): pip install 'tubelet[{extra}]'") from error
