"""Retrievers of other libraries over indexes of xmodal, and a server for language models.

langchain.py    retriever of LangChain (extra ``langchain``)
llama_index.py  retriever of LlamaIndex (extra ``llama-index``)
haystack.py     component of Haystack (extra ``haystack``)
conditions.py   filters of these libraries as ``where`` mappings
documents.py    text and metadata of a hit
mcp_server.py   tools for language models (extra ``mcp``)
"""
