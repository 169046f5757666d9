"""OpenSearch backend of xmodal: binary codes in an OpenSearch index, searched by Hamming distance.

``index`` implements ``xmodal.index.contract.Index``. The other folders load documents, connect an
index to an embedding service, run a development node and build the server plugin.
"""
