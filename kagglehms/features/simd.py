"""Vectors of floats for Numba: the few operations that the features are written in.

Numba's own loops reach 3 to 8 GF/s on this work because LLVM does not find the register tiles on its own. Here
a vector is a Numba value, `<8 x float>` or `<16 x float>` in LLVM, and every operation is one or a few generic
LLVM instructions (load, store, shufflevector, select, `llvm.fmuladd`): no instruction set is named, so the same
code becomes AVX2, AVX-512 or NEON, and still runs where there is none of them. `llvm.fmuladd`, not `llvm.fma`,
because the latter calls libm on a processor without fused multiply-add.

No operation carries fast-math flags: results are those of IEEE arithmetic, NaN included.

Half precision comes in as its bits, an array of uint16, and every load widens it. A half that is not finite
becomes NaN, because infinite samples count as missing. Processors without an instruction for it widen halves by
integer arithmetic: there LLVM's own conversion calls a run-time library, which a JIT does not have.

Register tiles are tuples of vectors: LLVM keeps each of them in registers of its own. Operations on tuples are
written out when they are compiled, which is quicker to compile than a line of Python for each vector.

Indices and steps count elements of an array from its start; they are not checked.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kagglehms.features import simd_ir
from kagglehms.features.simd_ir import I32, Builder, Values, VectorType, of_element, operation

permutation = simd_ir.permutation

LANES = 16
"""Signals of an EEG that are computed side by side, one in each lane of a vector."""


# ---- from arrays and back


def _is_readable(array: Any) -> bool:
    return isinstance(array, types.Array) and array.dtype in {types.float32, types.uint16}


def _load(lanes: int) -> Any:
    vector = VectorType(types.float32, lanes)

    def load(typingctx: Any, array: Any, index: Any) -> Any:
        if not _is_readable(array):
            return None

        def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
            at = context.cast(builder, args[1], index, types.int64)
            return simd_ir.load_vector(context, builder, array, args[0], at, vector)

        return vector(array, index), codegen

    load.__name__ = f"load{lanes}"
    load.__doc__ = (
        f"Load {lanes} neighbours of an array of float32, or of uint16 that are the bits of halves."
    )
    return intrinsic(load)


def _load_rows(lanes: int) -> Any:
    vector = VectorType(types.float32, lanes)

    def load_rows(typingctx: Any, array: Any, index: Any, step: Any) -> Any:
        if not _is_readable(array):
            return None

        def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
            at, by = (
                context.cast(builder, args[i], kind, types.int64) for i, kind in ((1, index), (2, step))
            )
            rows = []
            for _ in range(lanes):
                rows.append(simd_ir.load_vector(context, builder, array, args[0], at, vector))
                at = builder.add(at, by)
            return context.make_tuple(builder, signature.return_type, rows)

        return types.UniTuple(vector, lanes)(array, index, step), codegen

    load_rows.__name__ = f"load_rows{lanes}"
    load_rows.__doc__ = f"Load a tuple of {lanes} vectors of {lanes} lanes, `step` elements apart."
    return intrinsic(load_rows)


def _splat(lanes: int) -> Any:
    vector = VectorType(types.float32, lanes)

    def splat(typingctx: Any, value: Any) -> Any:
        if not isinstance(value, types.Number):
            return None

        def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
            return simd_ir.fill(builder, vector.ir_type, context.cast(builder, args[0], value, types.float32))

        return vector(value), codegen

    splat.__name__ = f"splat{lanes}"
    splat.__doc__ = f"Put one float32 into {lanes} lanes."
    return intrinsic(splat)


def _writer(past_caches: bool) -> Any:
    def write(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
        if not (isinstance(array, types.Array) and array.mutable and isinstance(value, VectorType)):
            return None

        def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
            at = context.cast(builder, args[1], index, types.int64)
            pointer = simd_ir.pointer(context, builder, array, args[0], at, value.ir_type)
            written = builder.store(args[2], pointer, align=32 if past_caches else 4)
            if past_caches:
                written.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))
            return context.get_dummy_value()

        return types.none(array, index, value), codegen

    return intrinsic(write)


load8, load16, load32 = _load(8), _load(16), _load(32)
load_rows8, load_rows16 = _load_rows(8), _load_rows(16)
splat8, splat16, splat32 = _splat(8), _splat(16), _splat(32)
store = _writer(past_caches=False)
"""Write a vector to neighbours in a float32 array."""
stream = _writer(past_caches=True)
"""Write a vector past the caches, for arrays larger than they are; the address must be a multiple of 32 bytes."""


@intrinsic
def store_rows(typingctx: Any, array: Any, index: Any, step: Any, rows: Any) -> Any:
    """Write a tuple of vectors to places that are `step` elements apart."""
    if not (isinstance(array, types.Array) and array.mutable and simd_ir.is_vectors(rows)):
        return None

    def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
        at, by = (context.cast(builder, args[i], kind, types.int64) for i, kind in ((1, index), (2, step)))
        for row in cgutils.unpack_tuple(builder, args[3], len(rows)):
            builder.store(row, simd_ir.pointer(context, builder, array, args[0], at, row.type), align=4)
            at = builder.add(at, by)
        return context.get_dummy_value()

    return types.none(array, index, step, rows), codegen


@intrinsic
def broadcast16(typingctx: Any, array: Any, index: Any) -> Any:
    """Load one element of a float32 array into 16 lanes."""
    if not (isinstance(array, types.Array) and array.dtype == types.float32):
        return None
    vector = VectorType(types.float32, 16)

    def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
        at = context.cast(builder, args[1], index, types.int64)
        return simd_ir.load_everywhere(context, builder, array, args[0], at, vector)

    return vector(array, index), codegen


# ---- arithmetic


@operation
def add(builder: Builder, a: ir.Value, b: ir.Value) -> ir.Value:
    """Return a + b."""
    return builder.fadd(a, b)


@operation
def sub(builder: Builder, a: ir.Value, b: ir.Value) -> ir.Value:
    """Return a − b."""
    return builder.fsub(a, b)


@operation
def mul(builder: Builder, a: ir.Value, b: ir.Value) -> ir.Value:
    """Return a · b."""
    return builder.fmul(a, b)


@operation
def div(builder: Builder, a: ir.Value, b: ir.Value) -> ir.Value:
    """Return a / b."""
    return builder.fdiv(a, b)


@operation
def fma(builder: Builder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """Return a · b + c, rounded once where the processor can."""
    return simd_ir.call(builder, "fmuladd", a, b, c)


@intrinsic
def fma_each(typingctx: Any, table: Any, index: Any, x: Any, sums: Any) -> Any:
    """Return sums[i] + table[index + i] · x for every vector of the tuple `sums`."""
    if not (isinstance(table, types.Array) and table.dtype == types.float32):
        return None
    if not (simd_ir.is_vectors(sums) and sums.dtype == x):
        return None

    def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
        at = context.cast(builder, args[1], index, types.int64)
        new = []
        for i, total in enumerate(cgutils.unpack_tuple(builder, args[3], len(sums))):
            place = builder.add(at, simd_ir.I64(i))
            factor = simd_ir.load_everywhere(context, builder, table, args[0], place, x)
            new.append(simd_ir.call(builder, "fmuladd", factor, args[2], total))
        return context.make_tuple(builder, sums, new)

    return sums(table, index, x, sums), codegen


@operation
def exponent(builder: Builder, x: ir.Value) -> ir.Value:
    """Return 2^23 · e, a whole number, with x = m · 2^e and m in [√½, √2), for positive normal float32."""
    return builder.sitofp(simd_ir.power_bits(builder, x), x.type)


@operation
def mantissa(builder: Builder, x: ir.Value) -> ir.Value:
    """Return the m of `exponent`."""
    power = simd_ir.power_bits(builder, x)
    return builder.bitcast(builder.sub(builder.bitcast(x, power.type), power), x.type)


widen = simd_ir.conversion(types.float64, "fpext")
"""Turn float32 lanes into float64."""
narrow = simd_ir.conversion(types.float32, "fptrunc")
"""Turn float64 lanes into float32."""


@intrinsic
def lane_sum(typingctx: Any, x: Any) -> Any:
    """Return the sum of all lanes, a scalar."""
    if not isinstance(x, VectorType):
        return None

    def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
        lanes = [builder.extract_element(args[0], I32(lane)) for lane in range(x.lanes)]
        while len(lanes) > 1:
            lanes = [builder.fadd(a, b) for a, b in zip(lanes[::2], lanes[1::2], strict=True)]
        return lanes[0]

    return x.element(x), codegen


# ---- choices


@operation
def lower(builder: Builder, a: ir.Value, b: ir.Value) -> ir.Value:
    """Return the smaller of each pair; `b` where either is NaN."""
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


@operation
def upper(builder: Builder, a: ir.Value, b: ir.Value) -> ir.Value:
    """Return the greater of each pair; `b` where either is NaN."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@operation
def where_finite(builder: Builder, x: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    """Return `a` where `x` is finite, else `b`."""
    return builder.select(simd_ir.is_finite(builder, x), a, b)


@intrinsic
def all_finite(typingctx: Any, x: Any) -> Any:
    """Return whether every lane is finite."""
    if not isinstance(x, VectorType):
        return None

    def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
        finite = simd_ir.is_finite(builder, args[0])
        bits = builder.bitcast(finite, ir.IntType(x.lanes))
        return builder.icmp_unsigned("==", bits, ir.Constant(bits.type, (1 << x.lanes) - 1))

    return types.boolean(x), codegen


@intrinsic
def last_lanes(typingctx: Any, x: Any, count: Any, fill: Any) -> Any:
    """Return the last `count` lanes of `x`, and the lanes of `fill` before them."""
    if not isinstance(x, VectorType) or fill != x:
        return None

    def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
        ints = of_element(x.ir_type, I32)
        lane = ir.Constant(ints, list(range(x.lanes)))
        first = builder.sub(I32(x.lanes), context.cast(builder, args[1], count, types.int32))
        chosen = builder.icmp_signed(">=", lane, simd_ir.fill(builder, ints, first))
        return builder.select(chosen, args[0], args[2])

    return x(x, count, fill), codegen


@intrinsic
def transpose(typingctx: Any, rows: Any) -> Any:
    """Exchange rows and lanes of a tuple of n vectors of n lanes, n a power of two."""
    if not (simd_ir.is_vectors(rows) and len(rows) == rows.dtype.lanes):
        return None
    n = len(rows)

    def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
        values = cgutils.unpack_tuple(builder, args[0], n)
        # Exchange the off-diagonal halves of ever smaller squares: steps n/2, …, 2, 1.
        step = n // 2
        while step:
            top = [n + i - step if i & step else i for i in range(n)]
            bottom = [n + i if i & step else i + step for i in range(n)]
            for i in range(n):
                if not i & step:
                    a, b = values[i], values[i + step]
                    values[i] = _shuffle(builder, a, b, top)
                    values[i + step] = _shuffle(builder, a, b, bottom)
            step //= 2
        return context.make_tuple(builder, signature.return_type, values)

    return rows(rows), codegen


def _shuffle(builder: Builder, a: ir.Value, b: ir.Value, indices: list[int]) -> ir.Value:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(indices)), indices))
