"""Other libraries: models and retrievers of theirs, and a server for language models.

sentence_transformers.py  an encoder as a model of sentence-transformers
sentence_folder.py        the folder of such a model
langchain.py     retriever of LangChain (extra ``langchain``)
llama_index.py   retriever of LlamaIndex (extra ``llama-index``)
haystack.py      component of Haystack (extra ``haystack``)
conditions.py    filters of these libraries as ``where`` mappings
queries.py       queries of options and filters
documents.py     text and metadata of a hit
mcp_server.py    tools for language models (extra ``mcp``)
"""
