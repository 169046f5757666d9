"""Counts of the documents at each Hamming distance from a query, without a matrix of distances.

All metrics of :mod:`xmodal.evaluation.metrics` are functions of these counts. A loop that LLVM
compiles for this processor counts a block of documents for several queries while the block is in
the processor's cache, so memory depends neither on the number of documents nor on that of queries.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError
from xmodal.index.scan_kernel import Kernel, compile_function

Counts = npt.NDArray[np.uint32]
Bool = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]

BLOCK = 1024
"""Documents whose distances are computed before they are counted."""
MAX_CELLS = 1 << 23
"""Counts of one call: 32 MB."""

I32, I64, POINTER = ir.IntType(32), ir.IntType(64), ir.PointerType()
PARAMETERS = {
    "codes": POINTER,  # (words, n) uint64: word w of document i at w * n + i
    "words": I64,
    "labels": POINTER,  # (label_words, n) uint64
    "label_words": I64,
    "n": I64,
    "queries": POINTER,  # (number, words) uint64
    "query_labels": POINTER,  # (number, label_words) uint64
    "number": I64,
    "cells": POINTER,  # (BLOCK,) uint32: scratch
    "counts": POINTER,  # (number, gains * levels) uint32
    "levels": I64,  # number of distances: bits + 1
    "width": I64,  # gains * levels
}


class DistanceCounter:
    """Codes of ``n`` documents, and their labels if relevance is by labels.

    ``labels``: (n, c) multi-hot. Memory: a copy of codes and labels, one bit a number.
    """

    def __init__(self, codes: BinaryCodes, labels: Bool | None = None) -> None:
        if labels is None:
            labels = np.zeros((len(codes), 0), np.bool_)
        if len(labels) != len(codes):
            raise ValueError(f"there are {len(labels)} labels of {len(codes)} codes, expected both")
        self.bits, self._n, self._classes = codes.bits, len(codes), labels.shape[1]
        self._codes, self._labels = _columns(codes.packed), _columns(_packed(labels))
        self._max_labels = int(labels.sum(axis=1).max(initial=0))

    def __len__(self) -> int:
        return self._n

    def counts(self, queries: BinaryCodes, labels: Bool | None = None) -> Counts:
        """Return the number of documents by shared labels and distance, (q, gains, bits + 1).

        ``labels``: (q, c) multi-hot labels of the queries; without them ``gains`` is 1. Element
        [i, g, d] is the number of documents at distance d that share g labels with query i.
        Threads share the queries.
        """
        if labels is None:
            labels = np.zeros((len(queries), self._classes), np.bool_)
        if queries.bits != self.bits:
            raise CodeError(
                f"cannot compare codes of {queries.bits} and {self.bits} bits: "
                "both must come from one encoder"
            )
        if labels.shape != (len(queries), self._classes):
            raise ValueError(
                f"labels have shape {labels.shape}, expected {(len(queries), self._classes)}"
            )
        levels = self.bits + 1
        gains = 1 + min(self._max_labels, int(labels.sum(axis=1).max(initial=0)))
        counts = np.zeros((len(queries), gains * levels), np.uint32)
        words, label_words = _words(queries.packed), _words(_packed(labels))
        count_block = kernel()

        def count(rows: npt.NDArray[np.int64]) -> None:
            if len(rows):
                part = slice(rows[0], rows[-1] + 1)
                count_block(
                    *(self._codes, len(self._codes), self._labels, len(self._labels), self._n),
                    *(words[part], label_words[part], len(rows), np.empty(BLOCK, np.uint32)),
                    *(counts[part], levels, gains * levels),
                )

        threads = os.cpu_count() or 1
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(count, np.array_split(np.arange(len(queries)), threads)))
        return counts.reshape(len(queries), gains, levels)

    def chunks(self, queries: int, further: int = 0) -> Iterator[slice]:
        """Yield slices of queries whose counts have at most ``MAX_CELLS`` numbers.

        ``further``: numbers of each query that the caller needs beside its counts.
        """
        step = max(1, MAX_CELLS // ((1 + self._max_labels) * (self.bits + 1) + further))
        return (slice(start, min(start + step, queries)) for start in range(0, queries, step))


def own_distances(queries: BinaryCodes, database: BinaryCodes) -> npt.NDArray[np.int64]:
    """Return the distance between row i of both codes, (n,)."""
    return np.asarray(np.bitwise_count(queries.packed ^ database.packed).sum(axis=1, dtype=int))


@cache
def kernel() -> Kernel:
    """Return the machine code of :func:`counting_module`."""
    types = [ctypes.c_void_p if kind is POINTER else ctypes.c_int64 for kind in PARAMETERS.values()]
    return compile_function(str(counting_module()), "count", types)


def counting_module() -> ir.Module:
    """Return LLVM's intermediate representation of the function ``count``.

    In C::

        for (start = 0; start < n; start += BLOCK)
            for (q = 0; q < number; q++) {
                size = min(BLOCK, n - start);
                for (j = 0; j < size; j++) cells[j] = 0;
                for (w = 0; w < words; w++)
                    for (j = 0; j < size; j++)
                        cells[j] += popcount(codes[w][start + j] ^ queries[q][w]);
                for (w = 0; w < label_words; w++)
                    if (query_labels[q][w])
                        for (j = 0; j < size; j++)
                            cells[j] += levels * shared(q, w, start + j);
                for (j = 0; j < size; j++)
                    counts[q][cells[j]]++;
            }

    with ``shared(q, w, i) = popcount(labels[w][i] & query_labels[q][w])``.
    """
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), PARAMETERS.values()), "count")
    for argument in function.args:
        if argument.type is POINTER:
            argument.add_attribute("noalias")
    at = dict(zip(PARAMETERS, function.args, strict=True))
    build = ir.IRBuilder(function.append_basic_block("entry"))
    blocks = build.udiv(build.add(at["n"], I64(BLOCK - 1)), I64(BLOCK))
    with _loop(build, blocks) as block, _loop(build, at["number"]) as q:
        start = build.mul(block, I64(BLOCK))
        rest = build.sub(at["n"], start)
        size = build.select(build.icmp_unsigned("<", rest, I64(BLOCK)), rest, I64(BLOCK))
        with _loop(build, size) as j:
            build.store(I32(0), _place(build, at["cells"], I32, j))
        for columns, own, words in (
            ("codes", "queries", at["words"]),
            ("labels", "query_labels", at["label_words"]),
        ):
            with _loop(build, words) as w:
                place = build.add(build.mul(q, words), w)
                query = build.load(_place(build, at[own], I64, place), typ=I64)
                used = I64(0) if columns == "codes" else query
                unequal = build.icmp_unsigned("!=", used, I64(0))
                count = size if columns == "codes" else build.select(unequal, size, I64(0))
                first = build.add(build.mul(w, at["n"]), start)
                with _loop(build, count) as j:
                    code = _place(build, at[columns], I64, build.add(first, j))
                    document = build.load(code, typ=I64)
                    if columns == "codes":
                        found = build.ctpop(build.xor(document, query))
                    else:
                        shared = build.ctpop(build.and_(document, query))
                        found = build.mul(shared, at["levels"])
                    cell = _place(build, at["cells"], I32, j)
                    added = build.add(build.load(cell, typ=I32), build.trunc(found, I32))
                    build.store(added, cell)
        own_counts = _place(build, at["counts"], I32, build.mul(q, at["width"]))
        with _loop(build, size) as j:
            number = build.load(_place(build, at["cells"], I32, j), typ=I32)
            counted = _place(build, own_counts, I32, build.zext(number, I64))
            build.store(build.add(build.load(counted, typ=I32), I32(1)), counted)
    build.ret_void()
    return module


@contextmanager
def _loop(build: ir.IRBuilder, end: ir.Value) -> Iterator[ir.Value]:
    """Context whose instructions are repeated for 0 to ``end`` - 1; the value is the number."""
    before = build.block
    head, body, after = (build.append_basic_block() for _ in range(3))
    build.branch(head)
    build.position_at_end(head)
    number = build.phi(I64)
    number.add_incoming(I64(0), before)
    build.cbranch(build.icmp_unsigned("<", number, end), body, after)
    build.position_at_end(body)
    yield number
    number.add_incoming(build.add(number, I64(1)), build.block)
    build.branch(head)
    build.position_at_end(after)


def _place(build: ir.IRBuilder, start: ir.Value, kind: ir.Type, position: ir.Value) -> ir.Value:
    return build.gep(start, [position], source_etype=kind)


def _packed(labels: Bool) -> npt.NDArray[np.uint8]:
    return np.packbits(labels, axis=1)


def _words(packed: npt.NDArray[np.uint8]) -> Words:
    """Return packed bytes (n, m) as 64-bit words (n, words), the last one filled with zeros."""
    words = np.zeros((len(packed), -(-packed.shape[1] // 8)), np.uint64)
    words.view(np.uint8)[:, : packed.shape[1]] = packed
    return words


def _columns(packed: npt.NDArray[np.uint8]) -> Words:
    """Return packed bytes (n, m) word by word, (words, n)."""
    columns = np.empty((-(-packed.shape[1] // 8), len(packed)), np.uint64)
    for start in range(0, len(packed), 1 << 16):  # in parts: needs less memory
        part = packed[start : start + (1 << 16)]
        columns[:, start : start + len(part)] = _words(part).T
    return columns
