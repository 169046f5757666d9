"""Pictures of an index that was moved with them: hashed once, in a bounded share of the time."""

from __future__ import annotations

from pathlib import Path

import pytest

from xmodal.data.picture_files import joint_hash, picture_hashes
from xmodal.index import moved_pictures
from xmodal.index.moved_pictures import MAX_SECONDS, SHARE, MovedPictures
from xmodal.index.origins import Origin


@pytest.fixture
def moved(tmp_path: Path) -> list[tuple[str, str]]:
    """Stored path and origin of pictures that are below ``tmp_path`` now."""
    found = []
    for number in range(10):
        path = tmp_path / "photos" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([number]))
        digest = joint_hash(list(picture_hashes([path]).values()))
        found.append(
            (f"/before/photos/{number}.png", Origin("photos", path.name, digest).to_text())
        )
    return found


def test_each_picture_is_hashed_once_in_a_share_of_the_time(
    moved: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, hashed = [0.0], list[Path]()

    def slow_hashes(paths: list[Path]) -> object:
        now[0] += 0.3
        hashed.extend(paths)
        return picture_hashes(paths)

    monkeypatch.setattr(moved_pictures, "picture_hashes", slow_hashes)
    pictures = MovedPictures(lambda: now[0])

    def count() -> int:
        """Number of pictures whose present path is found."""
        folder = tmp_path / "index"
        return sum(
            pictures.find({"image": path}, origin, folder)["image"] == str(tmp_path / path[8:])
            for path, origin in moved
        )

    first = count()
    assert first == len(hashed) == count() and MAX_SECONDS / 0.3 <= first < len(moved)
    now[0] += MAX_SECONDS / SHARE
    assert count() > first
    now[0] += 100
    count()
    now[0] += 100
    assert count() == len(moved) == len(hashed)
    (tmp_path / "photos" / "3.png").write_bytes(b"another picture")
    assert count() == len(moved) - 1
