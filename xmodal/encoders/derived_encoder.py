"""Base of encoders whose codes are those of another encoder, for other kinds of sources."""

from __future__ import annotations

from typing import Generic, TypeVar

from xmodal.encoders.encoder import Encoder

E = TypeVar("E", bound=Encoder)


class DerivedEncoder(Encoder, Generic[E]):
    """Encoder with the codes of ``encoder``, and with all that describes them."""

    def __init__(self, encoder: E) -> None:
        self.encoder = encoder
        self.precision, self.confidence = encoder.precision, encoder.confidence
        self.about, self.split = encoder.about, encoder.split

    @property
    def bits(self) -> int:
        """Width of the codes."""
        return self.encoder.bits

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the other encoder."""
        return self.encoder.fingerprint

    @property
    def shared_space(self) -> bool:
        """Whether features of pictures and texts can be compared with each other."""
        return self.encoder.shared_space
