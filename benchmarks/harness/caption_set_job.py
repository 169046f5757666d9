"""What jobs on the data sets of :mod:`harness.caption_sets` share: the file of their result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from harness import caption_sets
from harness.jobs import CODE, Environment, code_hash, result_path


@dataclass(frozen=True)
class CaptionSetJob:
    """A training by the contrastive method on a data set, and its figures."""

    MODULES: ClassVar[tuple[str, ...]] = (
        *CODE, "training/negatives.py", "features/units.py", "evaluation/captions.py",
    )  # fmt: skip
    """Modules that results depend on, in addition to those of the method."""

    data_set: str

    def inputs(self) -> dict[str, Any]:
        """Everything that the result depends on, except the content of the data."""
        raise NotImplementedError

    def stored_set(self) -> str:
        """The data set whose content the result depends on."""
        return self.data_set

    def code(self) -> str:
        """A hash of the code that the result depends on."""
        return code_hash("contrastive", self.MODULES)

    def path(self, environment: Environment) -> Path:
        """The file of the result. Raises DataError if data is missing."""
        data = caption_sets.fingerprint(self.stored_set(), environment.data)
        return result_path(environment, self.data_set, self.inputs() | {"data": data})

    def prepare(self, environment: Environment) -> None:
        """Nothing: jobs share no files but those of the feature cache, which is safe to share."""
