"""The local index with given binary codes: filters, radius, order of ties. Needs no torch.

python examples/02_codes_and_filters.py
"""

import tempfile
from pathlib import Path

import numpy as np

from xmodal import BinaryCodes, open_index


def main() -> None:
    rng = np.random.default_rng(0)
    codes = BinaryCodes.from_relaxed(rng.standard_normal((1000, 64)))
    ids = [f"shoe-{number:04d}" for number in range(1000)]
    fields = [{"colour": ["red", "blue"][n % 2], "price": n % 100} for n in range(1000)]

    folder = Path(tempfile.mkdtemp(), "shoes.index")
    with open_index(folder, bits=64, create=True) as index:
        index.add(ids, image=codes, fields=fields)

    index = open_index(folder)
    query = codes[:1]
    where = {"colour": "red", "price": {"lt": 20}}
    for hit in index.search(query, 5, target="image", where=where)[0]:
        print(f"distance {hit.distance:2d}  {hit.id}  {dict(hit.fields)}")
    near = index.search(query, 1000, target="image", radius=20)[0]
    print(f"{len(near)} documents within distance 20; equal distances are ordered by id")


if __name__ == "__main__":
    main()
