"""Log lines of the node: exceptions in one line, and repeated lines at a limited rate."""

from __future__ import annotations

import math
import re
import time
from typing import Any

from dwarf_ros.types import InputError


def one_line(error: BaseException) -> str:
    """An exception in one line, with its type unless it is an InputError."""
    if isinstance(error, InputError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


_NUMBER = re.compile(r"\d+(?:\.\d+)?")


class ThrottledLog:
    """Logs at most one line per second of each source, and the same line again only after 5 s.

    Lines that differ in their numbers only, such as a count that grows, are the same line.

    Args:
        logger: the node's.
    """

    def __init__(self, logger: Any) -> None:
        self.logger = logger
        self._logged: dict[str, tuple[str, float]] = {}

    def info(self, source: str, line: str) -> None:
        """Log what is worth knowing but no fault."""
        if self._is_due(source, line):
            self.logger.info(line)

    def warn(self, source: str, line: str) -> None:
        """Log a warning."""
        if self._is_due(source, line):
            self.logger.warning(line)

    def error(self, source: str, line: str) -> None:
        """Log an error."""
        if self._is_due(source, line):
            self.logger.error(line)

    def _is_due(self, source: str, line: str) -> bool:
        now_s = time.monotonic()
        line = _NUMBER.sub("#", line)
        last_line, last_s = self._logged.get(source, ("", -math.inf))
        if now_s - last_s < (5.0 if line == last_line else 1.0):
            return False
        self._logged[source] = (line, now_s)
        return True
