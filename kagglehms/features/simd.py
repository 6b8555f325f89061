"""Vectors of floats for Numba: the few operations that the features are written in.

Numba's own loops reach 3 to 8 GF/s on this work because LLVM does not find the register tiles by itself. Here
a vector is a Numba value, `<8 x float>` or `<16 x float>` in LLVM, and every operation is one or a few generic
LLVM instructions (load, store, shufflevector, select, `llvm.fmuladd`): no instruction set is named, so the same
code becomes AVX2, AVX-512 or NEON, and still runs where there is none of them. `llvm.fmuladd`, not `llvm.fma`,
because the latter calls libm on a processor without fused multiply-add.

No operation carries fast-math flags: results are those of IEEE arithmetic, NaN included.

Half precision comes in as its bits, an array of uint16, and `load8`/`load16` widen it. A half that is not finite
becomes NaN, which is what the features want (infinite samples count as missing). Integers do it, because LLVM's
own conversion calls a run-time library, absent from a JIT, on processors without the instruction.

Indices count elements from the start of an array; they are not checked.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

_F32 = ir.FloatType()
_F64 = ir.DoubleType()
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)

Builder: TypeAlias = ir.IRBuilder
Values: TypeAlias = Sequence[ir.Value]
Emit = Callable[..., ir.Value]


class VectorType(types.Type):  # type: ignore[misc]
    """Numba's type of a vector: `lanes` values of float32 or float64."""

    def __init__(self, element: types.Float, lanes: int) -> None:
        self.element = element
        self.lanes = lanes
        super().__init__(name=f"Vector({element}, {lanes})")

    @property
    def ir_type(self) -> ir.VectorType:
        return ir.VectorType(_F64 if self.element == types.float64 else _F32, self.lanes)


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: VectorType) -> None:
        super().__init__(dmm, fe_type, fe_type.ir_type)


# ---- what the operations emit; every helper takes the IR builder first


def _constant(vector: ir.VectorType, value: float) -> ir.Constant:
    return ir.Constant(vector, [value] * vector.count)


def _as(vector: ir.VectorType, element: ir.Type) -> ir.VectorType:
    return ir.VectorType(element, vector.count)


def _call(builder: Builder, name: str, *args: ir.Value) -> ir.Value:
    """Call LLVM's overloaded function `name` on arguments of one vector type."""
    kind = args[0].type
    full_name = f"llvm.{name}.v{kind.count}f{64 if kind.element == _F64 else 32}"
    signature = ir.FunctionType(kind, [kind] * len(args))
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, full_name), args)


def _is_finite(builder: Builder, x: ir.Value) -> ir.Value:
    return builder.fcmp_ordered("<", _call(builder, "fabs", x), _constant(x.type, math.inf))


def _widen_half(builder: Builder, half: ir.Value) -> ir.Value:
    """Turn <n x i16>, the bits of halves, into <n x float>; what is not finite becomes NaN."""
    floats, ints = _as(half.type, _F32), _as(half.type, _I32)
    # Sign at bit 31, exponent and fraction from bit 27 down. The exponent is still biased by 15 instead of 127:
    # a product with 2^112 mends that, denormals included.
    bits = builder.and_(
        builder.shl(builder.sext(half, ints), _constant(ints, 13)), _constant(ints, -0x70002000)
    )
    value = builder.fmul(builder.bitcast(bits, floats), _constant(floats, 2.0**112))
    finite = builder.fcmp_ordered("<", _call(builder, "fabs", value), _constant(floats, 65536.0))
    return builder.select(finite, value, _constant(floats, math.nan))


def _pointer(
    context: Any, builder: Builder, array: types.Array, value: ir.Value, index: ir.Value, to: ir.Type
) -> ir.Value:
    """Address of element `index` as a pointer to `to`; the casts suit LLVM with typed and with opaque pointers."""
    data = context.make_array(array)(context, builder, value).data
    item = context.get_data_type(array.dtype)
    base = builder.bitcast(data, item.as_pointer())
    return builder.bitcast(cgutils.pointer_add(builder, base, _bytes(builder, index, array)), to.as_pointer())


def _bytes(builder: Builder, index: ir.Value, array: types.Array) -> ir.Value:
    return builder.mul(index, _I64(array.dtype.bitwidth // 8), flags=("nsw",))


# ---- making operations


def _operation(emit: Emit) -> Any:
    """Make a Numba operation on vectors of one type out of `emit(builder, *vectors)`."""

    def typed(*args: Any) -> Any:
        if not isinstance(args[0], VectorType) or any(arg != args[0] for arg in args):
            return None

        def codegen(context: Any, builder: Builder, signature: Any, values: Values) -> ir.Value:
            return emit(builder, *values)

        return args[0](*args), codegen

    def one(typingctx: Any, a: Any) -> Any:
        return typed(a)

    def two(typingctx: Any, a: Any, b: Any) -> Any:
        return typed(a, b)

    def three(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
        return typed(a, b, c)

    # Numba reads the number of arguments off the function's own signature.
    function = {1: one, 2: two, 3: three}[len(inspect.signature(emit).parameters) - 1]
    function.__name__ = emit.__name__
    function.__doc__ = emit.__doc__
    return intrinsic(function)


def _load(lanes: int) -> Any:
    vector = VectorType(types.float32, lanes)

    def load(typingctx: Any, array: Any, index: Any) -> Any:
        if not (isinstance(array, types.Array) and array.dtype in {types.float32, types.uint16}):
            return None

        def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
            at = context.cast(builder, args[1], index, types.int64)
            if array.dtype == types.float32:
                return builder.load(_pointer(context, builder, array, args[0], at, vector.ir_type), align=4)
            half = _as(vector.ir_type, ir.IntType(16))
            return _widen_half(
                builder, builder.load(_pointer(context, builder, array, args[0], at, half), align=2)
            )

        return vector(array, index), codegen

    load.__name__ = f"load{lanes}"
    load.__doc__ = f"{lanes} neighbours of a float32 array, or of a uint16 array of the bits of halves."
    return intrinsic(load)


def _fill(builder: Builder, vector: ir.VectorType, scalar: ir.Value) -> ir.Value:
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, _I32(0))
    return builder.shuffle_vector(first, first, _constant(_as(vector, _I32), 0))


def _splat(lanes: int) -> Any:
    vector = VectorType(types.float32, lanes)

    def splat(typingctx: Any, value: Any) -> Any:
        if not isinstance(value, types.Number):
            return None

        def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
            return _fill(builder, vector.ir_type, context.cast(builder, args[0], value, types.float32))

        return vector(value), codegen

    splat.__name__ = f"splat{lanes}"
    splat.__doc__ = f"The same float32 in {lanes} lanes."
    return intrinsic(splat)


def _writer(past_caches: bool) -> Any:
    def write(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
        if not (isinstance(array, types.Array) and array.mutable and isinstance(value, VectorType)):
            return None

        def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
            at = context.cast(builder, args[1], index, types.int64)
            pointer = _pointer(context, builder, array, args[0], at, value.ir_type)
            written = builder.store(args[2], pointer, align=32 if past_caches else 4)
            if past_caches:
                written.set_metadata("nontemporal", builder.module.add_metadata([_I32(1)]))
            return context.get_dummy_value()

        return types.none(array, index, value), codegen

    return intrinsic(write)


def permutation(indices: Sequence[int]) -> Any:
    """Make an operation that picks lanes, by fixed `indices`, out of two vectors laid end to end."""

    def permute(typingctx: Any, a: Any, b: Any) -> Any:
        if not isinstance(a, VectorType) or a != b:
            return None

        def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
            mask = ir.Constant(ir.VectorType(_I32, len(indices)), list(indices))
            return builder.shuffle_vector(args[0], args[1], mask)

        return VectorType(a.element, len(indices))(a, b), codegen

    return intrinsic(permute)


# ---- the operations
LANES = 16  # signals that go side by side through what is computed of an EEG

load8, load16, load32 = _load(8), _load(16), _load(32)
splat8, splat16, splat32 = _splat(8), _splat(16), _splat(32)
store = _writer(past_caches=False)
"""Write a vector to neighbours in a float32 array."""
stream = _writer(past_caches=True)
"""The same past the caches, for arrays larger than they are; the address must be a multiple of 32 bytes."""


@intrinsic
def broadcast16(typingctx: Any, array: Any, index: Any) -> Any:
    """One element of a float32 array in 16 lanes."""
    if not (isinstance(array, types.Array) and array.dtype == types.float32):
        return None
    vector = VectorType(types.float32, 16)

    def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
        at = context.cast(builder, args[1], index, types.int64)
        scalar = builder.load(_pointer(context, builder, array, args[0], at, _F32), align=4)
        return _fill(builder, vector.ir_type, scalar)

    return vector(array, index), codegen


@_operation
def add(builder: Builder, a: ir.Value, b: ir.Value) -> ir.Value:
    """a + b"""
    return builder.fadd(a, b)


@_operation
def sub(builder: Builder, a: ir.Value, b: ir.Value) -> ir.Value:
    """a − b"""
    return builder.fsub(a, b)


@_operation
def mul(builder: Builder, a: ir.Value, b: ir.Value) -> ir.Value:
    """a · b"""
    return builder.fmul(a, b)


@_operation
def div(builder: Builder, a: ir.Value, b: ir.Value) -> ir.Value:
    """a / b"""
    return builder.fdiv(a, b)


@_operation
def fma(builder: Builder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """a · b + c, rounded once where the processor can."""
    return _call(builder, "fmuladd", a, b, c)


@_operation
def lower(builder: Builder, a: ir.Value, b: ir.Value) -> ir.Value:
    """The smaller of each pair; `b` where either is NaN."""
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


@_operation
def upper(builder: Builder, a: ir.Value, b: ir.Value) -> ir.Value:
    """The greater of each pair; `b` where either is NaN."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@_operation
def where_finite(builder: Builder, x: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    """`a` where `x` is finite, else `b`."""
    return builder.select(_is_finite(builder, x), a, b)


def _power_bits(builder: Builder, x: ir.Value) -> ir.Value:
    """e · 2^23, as integers, with x = m · 2^e and m in [√½, √2)."""
    ints = _as(x.type, _I32)
    above = builder.sub(builder.bitcast(x, ints), _constant(ints, 0x3F3504F3))  # the bits of √½
    return builder.and_(above, _constant(ints, -0x800000))


@_operation
def exponent(builder: Builder, x: ir.Value) -> ir.Value:
    """2^23 · e, a whole number, with x = m · 2^e and m in [√½, √2), for positive normal float32."""
    return builder.sitofp(_power_bits(builder, x), x.type)


@_operation
def mantissa(builder: Builder, x: ir.Value) -> ir.Value:
    """The m of `exponent`."""
    power = _power_bits(builder, x)
    return builder.bitcast(builder.sub(builder.bitcast(x, power.type), power), x.type)


def _converter(element: types.Float, instruction: str) -> Any:
    def convert(typingctx: Any, x: Any) -> Any:
        if not isinstance(x, VectorType):
            return None
        vector = VectorType(element, x.lanes)

        def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
            return getattr(builder, instruction)(args[0], vector.ir_type)

        return vector(x), codegen

    return intrinsic(convert)


widen = _converter(types.float64, "fpext")
"""float32 lanes as float64."""
narrow = _converter(types.float32, "fptrunc")
"""float64 lanes as float32."""


@intrinsic
def lane_sum(typingctx: Any, x: Any) -> Any:
    """The sum of all lanes, a scalar."""
    if not isinstance(x, VectorType):
        return None

    def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
        lanes = [builder.extract_element(args[0], _I32(lane)) for lane in range(x.lanes)]
        while len(lanes) > 1:
            lanes = [builder.fadd(a, b) for a, b in zip(lanes[::2], lanes[1::2], strict=True)]
        return lanes[0]

    return x.element(x), codegen


@intrinsic
def all_finite(typingctx: Any, x: Any) -> Any:
    """Whether every lane is finite."""
    if not isinstance(x, VectorType):
        return None

    def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
        finite = _is_finite(builder, args[0])
        bits = builder.bitcast(finite, ir.IntType(x.lanes))
        return builder.icmp_unsigned("==", bits, ir.Constant(bits.type, (1 << x.lanes) - 1))

    return types.boolean(x), codegen


@intrinsic
def last_lanes(typingctx: Any, x: Any, count: Any, fill: Any) -> Any:
    """`x` with all but its last `count` lanes replaced by those of `fill`."""
    if not isinstance(x, VectorType) or fill != x:
        return None

    def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
        lane = ir.Constant(ir.VectorType(_I32, x.lanes), list(range(x.lanes)))
        first = builder.sub(_I32(x.lanes), context.cast(builder, args[1], count, types.int32))
        one = builder.insert_element(ir.Constant(lane.type, ir.Undefined), first, _I32(0))
        firsts = builder.shuffle_vector(one, one, _constant(lane.type, 0))
        return builder.select(builder.icmp_signed(">=", lane, firsts), args[0], args[2])

    return x(x, count, fill), codegen


@intrinsic
def transpose(typingctx: Any, rows: Any) -> Any:
    """A tuple of n vectors of n lanes, n a power of two, with rows and lanes exchanged."""
    if not (
        isinstance(rows, types.UniTuple)
        and isinstance(rows.dtype, VectorType)
        and len(rows) == rows.dtype.lanes
    ):
        return None
    n = len(rows)

    def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
        values = cgutils.unpack_tuple(builder, args[0], n)
        # Exchange the off-diagonal halves of ever smaller squares: steps n/2, …, 2, 1.
        step = n // 2
        while step:
            top = ir.Constant(ir.VectorType(_I32, n), [i if not i & step else n + i - step for i in range(n)])
            bottom = ir.Constant(
                ir.VectorType(_I32, n), [i + step if not i & step else n + i for i in range(n)]
            )
            for i in range(n):
                if not i & step:
                    a, b = values[i], values[i + step]
                    values[i] = builder.shuffle_vector(a, b, top)
                    values[i + step] = builder.shuffle_vector(a, b, bottom)
            step //= 2
        return context.make_tuple(builder, signature.return_type, values)

    return rows(rows), codegen
