"""Train an encoder on a folder of images with captions, index the folder, and search.

python examples/01_own_folder.py [FOLDER]      default: synthetic images
"""

import sys
from pathlib import Path

import xmodal
from xmodal.config import Options
from xmodal.data.synthetic import write_synthetic_data


def main(folder: str | None = None, work: str = "example") -> None:
    photos = Path(folder) if folder else write_synthetic_data(Path(work, "photos"), 300)
    data = xmodal.read(photos)
    print(f"{len(data)} items, {len(data.pairs())} pairs")

    options = Options(bits=32, image_backbone="small-cnn", text_backbone="words")
    encoder = xmodal.train(data, Path(work, "model"), options, {"epochs": 3, "batch": 64})

    index = xmodal.open_index(
        Path(work, "index"), bits=encoder.bits, fingerprint=encoder.fingerprint, create=True
    )
    for batch in encoder.batches(data):
        index.add(batch)

    for hit in xmodal.Retriever(encoder, index).search(text="a red circle on the left", k=3):
        print(hit.distance, f"{hit.confidence:.0%}", hit.fields["text"])
    index.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
