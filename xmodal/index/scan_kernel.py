"""Compilation of the loop that compares queries with all codes, by LLVM for this processor.

The loop is unrolled over the words and weight planes of a code; LLVM makes vector instructions of
it. Compilation takes 30 to 120 ms, once per process and shape, and needs no compiler and no cache
on disk. ctypes releases the interpreter's lock during a call.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache, reduce
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
import numpy.typing as npt
from llvmlite import ir

BLOCK = 128
"""Number of consecutive codes for which the kernel returns one minimum."""
NO_KEY = 2**32 - 1
"""Key of a code that is not searched; larger than every key of a code."""

I8, I32, I64, POINTER = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.PointerType()
PARAMETERS = {
    "codes": POINTER,  # (words, n) uint64: word w of code i at w * n + i
    "n": I64,
    "searched": POINTER,  # (n,) bool: the codes to search
    "blocks": POINTER,  # (count,) int64: numbers of the blocks to scan
    "count": I64,
    "queries": POINTER,  # (number, 1 + planes, words) uint64, see ScanQueries
    "number": I64,
    "factor": I64,  # of the weighted distance in a key
    "radius": I64,  # largest Hamming distance of a code that is searched
    "keys": POINTER,  # uint32: key of code j of the block at position b: at b * stride + j
    "stride": I64,
    "minima": POINTER,  # uint32: smallest key of the block at b for query q: at q * total + b
    "total": I64,
}


class Kernel(NamedTuple):
    """Machine code of a function; ``engine`` owns it.

    The keys of a scan are ``D * factor + h`` of weighted distance D and Hamming distance h, or h
    without planes, and ``NO_KEY`` for a code that is not searched or outside of the radius.
    """

    function: Any
    engine: llvm.ExecutionEngine

    def __call__(self, *arguments: npt.NDArray[Any] | int) -> None:
        """Call the function; arrays are C-contiguous."""
        self.function(*(a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments))


@cache
def kernel(words: int, planes: int) -> Kernel:
    """Return the kernel for codes of ``words`` 64-bit words; ``planes``: 0 for Hamming keys."""
    types = [ctypes.c_void_p if kind is POINTER else ctypes.c_int64 for kind in PARAMETERS.values()]
    return compile_function(str(scan_module(words, planes)), "scan", types)


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
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = True
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)
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


def scan_module(words: int, planes: int) -> ir.Module:
    """Return LLVM's intermediate representation of the function ``scan``.

    In C, with ``key`` of :func:`_key`::

        for (b = 0; b < count; b++)
            for (q = 0; q < number; q++) {
                uint32_t minimum = NO_KEY;
                for (j = 0; j < BLOCK; j++) {
                    uint32_t key = key_of(queries[q], blocks[b] * BLOCK + j);
                    keys[b * stride + j] = key;
                    minimum = min(minimum, key);
                }
                minima[q * total + b] = minimum;
            }

    A block stays in the processor's cache while it is compared with all queries.
    """
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), PARAMETERS.values()), "scan")
    for argument in function.args:
        if argument.type is POINTER:
            argument.add_attribute("noalias")
    at = dict(zip(PARAMETERS, function.args, strict=True))
    names = (
        "entry",
        "each_block",
        "each_query",
        "each_code",
        "after_codes",
        "after_queries",
        "end",
    )
    blocks = {name: function.append_basic_block(name) for name in names}
    zero = I64(0)

    build = ir.IRBuilder(blocks["entry"])
    columns = [
        build.gep(at["codes"], [build.mul(at["n"], I64(word))], source_etype=I64)
        for word in range(words)
    ]
    empty = build.icmp_signed("==", build.mul(at["count"], at["number"]), zero)
    build.cbranch(empty, blocks["end"], blocks["each_block"])

    build.position_at_end(blocks["each_block"])
    b = build.phi(I64)
    b.add_incoming(zero, blocks["entry"])
    first = build.mul(_load(build, at["blocks"], I64, b), I64(BLOCK))
    out = build.gep(at["keys"], [build.mul(b, at["stride"])], source_etype=I32)
    build.branch(blocks["each_query"])

    build.position_at_end(blocks["each_query"])
    q = build.phi(I64)
    q.add_incoming(zero, blocks["each_block"])
    start = build.mul(q, I64((1 + planes) * words))
    query, *weights = [
        [
            _load(build, at["queries"], I64, build.add(start, I64(row * words + word)))
            for word in range(words)
        ]
        for row in range(1 + planes)
    ]
    build.branch(blocks["each_code"])

    build.position_at_end(blocks["each_code"])
    j, minimum = build.phi(I64), build.phi(I32)
    j.add_incoming(zero, blocks["each_query"])
    minimum.add_incoming(I32(NO_KEY), blocks["each_query"])
    code = build.add(first, j)
    different = [
        build.xor(_load(build, column, I64, code), word)
        for column, word in zip(columns, query, strict=True)
    ]
    searched = build.icmp_signed("!=", _load(build, at["searched"], I8, code), I8(0))
    key = _key(build, different, weights, searched, at["factor"], at["radius"])
    build.store(key, build.gep(out, [j], source_etype=I32))
    smaller = build.select(build.icmp_unsigned("<", key, minimum), key, minimum)
    minimum.add_incoming(smaller, blocks["each_code"])
    _count_up(build, j, I64(BLOCK), blocks["each_code"], blocks["after_codes"])

    build.position_at_end(blocks["after_codes"])
    place = build.add(build.mul(q, at["total"]), b)
    build.store(smaller, build.gep(at["minima"], [place], source_etype=I32))
    _count_up(build, q, at["number"], blocks["each_query"], blocks["after_queries"])

    build.position_at_end(blocks["after_queries"])
    _count_up(build, b, at["count"], blocks["each_block"], blocks["end"])

    build.position_at_end(blocks["end"])
    build.ret_void()
    return module


def _count_up(
    build: ir.IRBuilder, counter: ir.Value, end: ir.Value, loop: ir.Block, after: ir.Block
) -> None:
    """End a loop: add one to its counter, and repeat it until ``end``."""
    following = build.add(counter, I64(1))
    counter.add_incoming(following, build.block)
    build.cbranch(build.icmp_signed("==", following, end), after, loop)


def _key(
    build: ir.IRBuilder,
    different: Sequence[ir.Value],
    weights: Sequence[Sequence[ir.Value]],
    searched: ir.Value,
    factor: ir.Value,
    radius: ir.Value,
) -> ir.Value:
    """Return the key of a code; ``different``: its words, xor those of the query."""
    hamming = reduce(build.add, map(build.ctpop, different))
    key = hamming
    if weights:
        weighted: ir.Value = I64(0)
        for exponent, plane in enumerate(weights):
            pairs = zip(different, plane, strict=True)
            count = reduce(build.add, [build.ctpop(build.and_(word, bits)) for word, bits in pairs])
            weighted = build.add(weighted, build.shl(count, I64(exponent)))
        key = build.add(build.mul(weighted, factor), hamming)
    valid = build.and_(searched, build.icmp_unsigned("<=", hamming, radius))
    return build.select(valid, build.trunc(key, I32), I32(NO_KEY))


def _load(build: ir.IRBuilder, start: ir.Value, kind: ir.Type, position: ir.Value) -> ir.Value:
    """Return the element at ``position`` of the array at ``start``."""
    return build.load(build.gep(start, [position], source_etype=kind), typ=kind)
