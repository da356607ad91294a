"""Output folders that an interrupted command can resume."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dwarf_ros.files import remove_partial_files, write_atomically
from dwarf_ros.types import InputError


@dataclass(frozen=True)
class ResumableFolder:
    """Folders of files that appear whole or not at all, and a record of the settings that they depend on.

    Attributes:
        record: JSON file of the settings.
        command: that fills the folders, for messages.
        compared: keys of the settings that must not change, and what they are called in messages.
        folders: the folders to fill.
    """

    record: Path
    command: str
    compared: Mapping[str, str]
    folders: Sequence[Path]

    def begin(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Make the folders and the record, or check that they were begun with the same settings.

        Returns:
            the settings in the record.

        Raises:
            InputError: they were begun with other settings, hold files but no record, or cannot be written to.
        """
        try:
            if self.record.exists():
                begun = self._read()
                self._compare(begun, settings)
            else:
                begun = settings
                self._check_empty()
            for folder in self.folders:
                folder.mkdir(parents=True, exist_ok=True)
            if begun is settings:
                write_atomically(self.record, (json.dumps(settings, indent=1) + "\n").encode())
        except OSError as error:
            raise InputError(
                f"{error.filename or self.record}: {error.strerror or error}, expected a folder to write to"
            ) from None
        return begun

    def remove_partial_files(self) -> None:
        """Remove files that interrupted processes did not finish."""
        for folder in self.folders:
            remove_partial_files(folder)

    def not_a_record(self) -> InputError:
        """Error for a record that lacks something."""
        return InputError(
            f"{self.record}: is no record of a {self.record.stem}, expected one of {self.command}"
        )

    def _read(self) -> dict[str, Any]:
        try:
            begun = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{self.record}: cannot be read: {error}") from None
        if not isinstance(begun, dict):
            raise self.not_a_record()
        return begun

    def _compare(self, begun: dict[str, Any], settings: dict[str, Any]) -> None:
        for key, words in self.compared.items():
            if begun.get(key) != settings[key]:
                raise InputError(
                    f"{self.record}: folder was begun with {words} {begun.get(key)}, now it is {settings[key]}; "
                    "expected the same, or another folder"
                )

    def _check_empty(self) -> None:
        for folder in self.folders:
            if (other := next(folder.glob("*"), None)) is not None:
                raise InputError(
                    f"{other}: is there but no {self.record}, expected an empty folder or one that {self.command} began"
                )
