"""Parts: Parquet files of encoded documents, one for each shard of a data set.

``xmodal encode`` writes parts, which indexes of all backends load without the encoder. The columns:

    id, fields (JSON), origin           texts
    image, text                         lists of codes, fixed-size binary
    image_vectors, text_vectors         lists of int8 vectors, fixed-size binary; of encoders with
                                        outputs

A row group has ``writing.GROUP_ROWS`` documents, the last one the rest. The key ``xmodal.part`` of
the file's metadata has a JSON object: :class:`.info.PartInfo`, a CRC-32 for each row group, and a
digest of the object. Equal documents give equal bytes.
"""
