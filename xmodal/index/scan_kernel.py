"""The compiled loop that compares queries with all codes.

The loop is written in LLVM's intermediate representation and compiled at its first use, in 10 to
20 ms, for the vector instructions of this processor (AVX-512 counts the bits of eight words with
one, LLVM replaces it elsewhere). This needs no compiler and no cache on disk, and the package needs
no binary per platform. The vectors are explicit because the vectorizer of LLVM takes longer to
compile the scalar loop, and its result is half as fast. ctypes releases the interpreter's lock
during a call.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
import numpy.typing as npt

BLOCK = 128
"""Number of consecutive codes for which the kernel returns one minimum."""
NO_KEY = 2**32 - 1
"""Key of a code that is not searched; larger than every key of a code."""

# The function in C. A key is D * factor + h of the weighted distance D and the Hamming distance h,
# or h without planes. It is NO_KEY for a code that is not searched, and with planes for a code
# outside of `radius`.
#
#   while ((start = atomic_add(next, chunk)) < count)      // threads share the blocks
#       for (at = start; at < min(start + chunk, count); at++) {
#           if (no code of blocks[at] is searched) continue;  // nothing is written
#           for (q = 0; q < number; q++) {                 // a block stays in the cache for all q
#               uint32_t minimum = NO_KEY;
#               for (j = 0; j < BLOCK; j++) {
#                   uint32_t key = key_of(queries[q], blocks[at] * BLOCK + j);
#                   keys[at * BLOCK + j] = key;            // only if the keys are stored
#                   minimum = min(minimum, key);
#               }
#               minima[q * total + at] = minimum;
#           }
#       }
PARAMETERS = {
    "codes": "ptr",  # (words, n) uint64: word w of code i at w * n + i
    "n": "i64",  # multiple of BLOCK
    "searched": "ptr",  # bool: code j of block b at b * step + j, or at j for the block `last`
    "step": "i64",  # BLOCK, or 0 for an array that is used for each block
    "last": "i64",
    "searched_last": "ptr",  # (BLOCK,) bool: codes of the block `last` to search
    "blocks": "ptr",  # (count,) int64: numbers of the blocks to scan
    "count": "i64",
    "next": "ptr",  # int64, 0 at first: number of blocks that threads have begun
    "chunk": "i64",  # number of blocks that a thread begins at once
    "queries": "ptr",  # (number, 1 + planes, words) uint64, see ScanQueries
    "number": "i64",  # above 0
    "factor": "i64",  # of the weighted distance in a key
    "radius": "i64",  # largest Hamming distance of a code that is searched, with planes
    "keys": "ptr",  # (count, BLOCK) uint32: keys for the only query, if they are stored
    "minima": "ptr",  # uint32: smallest key of the block at `at` for query q: q * total + at
    "total": "i64",
}
TEMPLATE = """
declare <8 x i64> @llvm.ctpop.v8i64(<8 x i64>)
declare <8 x i64> @llvm.umin.v8i64(<8 x i64>, <8 x i64>)
declare i64 @llvm.vector.reduce.umin.v8i64(<8 x i64>)
declare i8 @llvm.vector.reduce.or.v{block}i8(<{block} x i8>)
declare i64 @llvm.smin.i64(i64, i64)

define void @scan({parameters}) {{
begin:
  {factor_and_radius}
  br label %take

take:
  %start = atomicrmw add ptr %next, i64 %chunk monotonic
  %after_chunk = add i64 %start, %chunk
  %end = call i64 @llvm.smin.i64(i64 %after_chunk, i64 %count)
  %left = icmp slt i64 %start, %count
  br i1 %left, label %each_block, label %return

each_block:
  %at = phi i64 [ %start, %take ], [ %next_at, %after_queries ]
  %block_at = getelementptr i64, ptr %blocks, i64 %at
  %block = load i64, ptr %block_at
  %first = mul i64 %block, {block}
  %searched_place = mul i64 %block, %step
  %searched_block = getelementptr i8, ptr %searched, i64 %searched_place
  %is_last = icmp eq i64 %block, %last
  %mask = select i1 %is_last, ptr %searched_last, ptr %searched_block
  %keys_place = mul i64 %at, {block}
  %block_keys = getelementptr i32, ptr %keys, i64 %keys_place
  %mask_of_block = load <{block} x i8>, ptr %mask, align 1
  %any = call i8 @llvm.vector.reduce.or.v{block}i8(<{block} x i8> %mask_of_block)
  %is_empty = icmp eq i8 %any, 0
  br i1 %is_empty, label %after_queries, label %each_query

each_query:
  %q = phi i64 [ 0, %each_block ], [ %next_q, %after_codes ]
  %query_place = mul i64 %q, {query_words}
  %query = getelementptr i64, ptr %queries, i64 %query_place
  {query_vectors}
  {code_columns}
  br label %each_code

each_code:
  %j = phi i64 [ 0, %each_query ], [ %next_j, %each_code ]
  %minimum = phi <8 x i64> [ splat (i64 {no_key}), %each_query ], [ %smaller, %each_code ]
  {differences}
  {key}
  %mask_at = getelementptr i8, ptr %mask, i64 %j
  %mask_bytes = load <8 x i8>, ptr %mask_at, align 1
  %is_searched = icmp ne <8 x i8> %mask_bytes, zeroinitializer
  %valid = select <8 x i1> %is_searched, <8 x i64> %key, <8 x i64> splat (i64 {no_key})
  {store}
  %smaller = call <8 x i64> @llvm.umin.v8i64(<8 x i64> %minimum, <8 x i64> %valid)
  %next_j = add i64 %j, 8
  %codes_end = icmp eq i64 %next_j, {block}
  br i1 %codes_end, label %after_codes, label %each_code

after_codes:
  %smallest = call i64 @llvm.vector.reduce.umin.v8i64(<8 x i64> %smaller)
  %smallest_key = trunc i64 %smallest to i32
  %minima_row = mul i64 %q, %total
  %minima_place = add i64 %minima_row, %at
  %minima_at = getelementptr i32, ptr %minima, i64 %minima_place
  store i32 %smallest_key, ptr %minima_at
  %next_q = add i64 %q, 1
  %queries_end = icmp eq i64 %next_q, %number
  br i1 %queries_end, label %after_queries, label %each_query

after_queries:
  %next_at = add i64 %at, 1
  %chunk_end = icmp eq i64 %next_at, %end
  br i1 %chunk_end, label %take, label %each_block

return:
  ret void
}}
"""


class Kernel(NamedTuple):
    """Machine code of a function; ``engine`` owns it."""

    function: Any
    engine: llvm.ExecutionEngine

    def __call__(self, *arguments: npt.NDArray[Any] | int) -> None:
        """Call the function; arrays are C-contiguous."""
        self.function(*(a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments))


@cache
def kernel(words: int, planes: int, stores_keys: bool) -> Kernel:
    """Return the kernel for codes of ``words`` 64-bit words; ``planes``: 0 for Hamming keys."""
    types = [ctypes.c_void_p if kind == "ptr" else ctypes.c_int64 for kind in PARAMETERS.values()]
    return compile_function(scan_module(words, planes, stores_keys), "scan", types)


def compile_function(assembly: str, name: str, types: Sequence[type]) -> Kernel:
    """Return machine code of a function without a result.

    ``assembly``: LLVM's intermediate representation of its module. ``types``: ctypes of its
    parameters.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=_processor_features(), opt=3
    )
    module = llvm.parse_assembly(assembly)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    prototype = ctypes.CFUNCTYPE(None, *types)
    return Kernel(prototype(engine.get_function_address(name)), engine)


def _processor_features() -> str:
    """Return the instruction sets of this processor, in the form of LLVM."""
    try:
        features: str = llvm.get_host_cpu_features().flatten()
    except RuntimeError:  # not detected on every system
        return ""
    return features


def scan_module(words: int, planes: int, stores_keys: bool) -> str:
    """Return LLVM's intermediate representation of the function ``scan``."""
    pointers = {"ptr": "ptr noalias", "i64": "i64"}
    query_words = range((1 + planes) * words)
    parts = {
        "factor_and_radius": [*_repeated("factors", "%factor"), *_repeated("radii", "%radius")],
        "query_vectors": [line for word in query_words for line in _query_word(word)],
        "code_columns": [line for word in range(words) for line in _column(word)],
        "differences": [line for word in range(words) for line in _difference(word)],
        "key": _weighted_key(words, planes) if planes else _count("key", "different", words),
        "store": STORE if stores_keys else [],
    }
    return TEMPLATE.format(
        parameters=", ".join(f"{pointers[kind]} %{name}" for name, kind in PARAMETERS.items()),
        block=BLOCK,
        no_key=NO_KEY,
        query_words=len(query_words),
        **{name: "\n  ".join(lines) for name, lines in parts.items()},
    )


STORE = [
    "%key_words = trunc <8 x i64> %valid to <8 x i32>",
    "%keys_at = getelementptr i32, ptr %block_keys, i64 %j",
    "store <8 x i32> %key_words, ptr %keys_at, align 4",
]


def _repeated(name: str, value: str) -> Iterator[str]:
    """Yield lines that define a vector of equal values."""
    yield f"%{name}_first = insertelement <8 x i64> poison, i64 {value}, i64 0"
    yield (
        f"%{name} = shufflevector <8 x i64> %{name}_first, <8 x i64> poison, "
        "<8 x i32> zeroinitializer"
    )


def _query_word(word: int) -> Iterator[str]:
    """Yield lines that load a word of a query, of its code or of a bit plane."""
    yield f"%query_at{word} = getelementptr i64, ptr %query, i64 {word}"
    yield f"%query_word{word} = load i64, ptr %query_at{word}"
    yield from _repeated(f"query{word}", f"%query_word{word}")


def _column(word: int) -> Iterator[str]:
    """Yield lines that compute where a word of the first code of the block is."""
    yield f"%column_start{word} = mul i64 %n, {word}"
    yield f"%column_place{word} = add i64 %column_start{word}, %first"
    yield f"%column{word} = getelementptr i64, ptr %codes, i64 %column_place{word}"


def _difference(word: int) -> Iterator[str]:
    """Yield lines that compute the bits of a word in which eight codes and the query differ."""
    yield f"%code_at{word} = getelementptr i64, ptr %column{word}, i64 %j"
    yield f"%code{word} = load <8 x i64>, ptr %code_at{word}, align 8"
    yield f"%different{word} = xor <8 x i64> %code{word}, %query{word}"


def _weighted_key(words: int, planes: int) -> Iterator[str]:
    """Yield lines that compute the keys of differences and weights."""
    yield from _count("hamming", "different", words)
    distance = "zeroinitializer"
    for plane in reversed(range(planes)):  # a plane counts twice the one before
        for word in range(words):
            weights = f"%query{(1 + plane) * words + word}"
            yield f"%plane{plane}_word{word} = and <8 x i64> %different{word}, {weights}"
        yield from _count(f"ones{plane}", f"plane{plane}_word", words)
        yield f"%twice{plane} = shl <8 x i64> {distance}, splat (i64 1)"
        yield f"%distance{plane} = add <8 x i64> %twice{plane}, %ones{plane}"
        distance = f"%distance{plane}"
    yield f"%scaled = mul <8 x i64> {distance}, %factors"
    yield "%both = add <8 x i64> %scaled, %hamming"
    yield "%is_within = icmp ule <8 x i64> %hamming, %radii"
    yield f"%key = select <8 x i1> %is_within, <8 x i64> %both, <8 x i64> splat (i64 {NO_KEY})"


def _count(name: str, values: str, words: int) -> Iterator[str]:
    """Yield lines that define the number of ones in the vectors ``values`` 0, 1, ..."""
    total = "zeroinitializer"
    for word in range(words):
        result = f"%{name}" if word == words - 1 else f"%{name}_up_to{word}"
        yield f"%{name}_in{word} = call <8 x i64> @llvm.ctpop.v8i64(<8 x i64> %{values}{word})"
        yield f"{result} = add <8 x i64> {total}, %{name}_in{word}"
        total = result
