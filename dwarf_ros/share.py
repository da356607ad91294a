"""Where the package's own files (config/, launch/, model/) lie, in a checkout as after installation."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def share_directory() -> Path:
    """The folder that holds config/, launch/ and model/.

    The checkout where the package runs from one, else share/dwarf_ros of the first prefix that has it: those of
    AMENT_PREFIX_PATH, then Python's own.

    Raises:
        FileNotFoundError: none of them has it.
    """
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "package.xml").is_file() and (checkout / "setup.py").is_file():
        return checkout
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    candidates = [prefix / "share" / "dwarf_ros" for prefix in (*prefixes, Path(sys.prefix))]
    for candidate in candidates:
        if (candidate / "package.xml").is_file():
            return candidate
    raise FileNotFoundError(
        f"dwarf_ros: no share/dwarf_ros in {', '.join(map(str, candidates))}; is the package installed whole?"
    )
