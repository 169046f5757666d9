"""Compilation of the loop that compares one query with all codes, by LLVM for this processor.

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

BLOCK = 256
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
    "query": POINTER,  # (words,) uint64
    "planes": POINTER,  # (planes, words) uint64: plane p has the bits whose weights contain 2 ** p
    "factor": I64,  # of the weighted distance in a key
    "radius": I64,  # largest Hamming distance of a code that is searched
    "keys": POINTER,  # uint32: key of code j of the block at position b: at b * stride + j
    "stride": I64,
    "minima": POINTER,  # (count,) uint32: smallest key of each block
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
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
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


def scan_module(words: int, planes: int) -> ir.Module:
    """Return LLVM's intermediate representation of the function ``scan``.

    In C, with ``key`` of :func:`_key`::

        for (b = 0; b < count; b++) {
            uint32_t minimum = NO_KEY;
            for (j = 0; j < BLOCK; j++) {
                uint32_t key = key_of(blocks[b] * BLOCK + j);
                keys[b * stride + j] = key;
                minimum = min(minimum, key);
            }
            minima[b] = minimum;
        }
    """
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), PARAMETERS.values()), "scan")
    for argument in function.args:
        if argument.type is POINTER:
            argument.add_attribute("noalias")
    at = dict(zip(PARAMETERS, function.args, strict=True))
    entry, outer, inner, after, end = map(
        function.append_basic_block, ("entry", "outer", "inner", "after", "end")
    )
    zero, one = I64(0), I64(1)

    build = ir.IRBuilder(entry)
    query = [_load(build, at["query"], I64, I64(word)) for word in range(words)]
    weights = [
        [_load(build, at["planes"], I64, I64(plane * words + word)) for word in range(words)]
        for plane in range(planes)
    ]
    columns = [
        build.gep(at["codes"], [build.mul(at["n"], I64(word))], source_etype=I64)
        for word in range(words)
    ]
    build.cbranch(build.icmp_signed("==", at["count"], zero), end, outer)

    build.position_at_end(outer)
    b = build.phi(I64)
    b.add_incoming(zero, entry)
    first = build.mul(_load(build, at["blocks"], I64, b), I64(BLOCK))
    out = build.gep(at["keys"], [build.mul(b, at["stride"])], source_etype=I32)
    build.branch(inner)

    build.position_at_end(inner)
    j, minimum = build.phi(I64), build.phi(I32)
    j.add_incoming(zero, outer)
    minimum.add_incoming(I32(NO_KEY), outer)
    code = build.add(first, j)
    different = [
        build.xor(_load(build, column, I64, code), word)
        for column, word in zip(columns, query, strict=True)
    ]
    searched = build.icmp_signed("!=", _load(build, at["searched"], I8, code), I8(0))
    key = _key(build, different, weights, searched, at["factor"], at["radius"])
    build.store(key, build.gep(out, [j], source_etype=I32))
    smaller = build.select(build.icmp_unsigned("<", key, minimum), key, minimum)
    next_j = build.add(j, one)
    j.add_incoming(next_j, inner)
    minimum.add_incoming(smaller, inner)
    build.cbranch(build.icmp_signed("==", next_j, I64(BLOCK)), after, inner)

    build.position_at_end(after)
    build.store(smaller, build.gep(at["minima"], [b], source_etype=I32))
    next_b = build.add(b, one)
    b.add_incoming(next_b, after)
    build.cbranch(build.icmp_signed("==", next_b, at["count"]), end, outer)

    build.position_at_end(end)
    build.ret_void()
    return module


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
