"""Numba's type of a vector, and the LLVM instructions that the operations of `simd` are made of.

Every function that emits instructions takes the IR builder first and returns the value that they compute.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

F32 = ir.FloatType()
F64 = ir.DoubleType()
I32 = ir.IntType(32)
I64 = ir.IntType(64)

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
        return ir.VectorType(F64 if self.element == types.float64 else F32, self.lanes)


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: VectorType) -> None:
        super().__init__(dmm, fe_type, fe_type.ir_type)


def is_vectors(kind: types.Type) -> bool:
    """Return whether `kind` is a tuple of vectors of one type."""
    return isinstance(kind, types.UniTuple) and isinstance(kind.dtype, VectorType)


def constant(vector: ir.VectorType, value: float) -> ir.Constant:
    """Return `value` in every lane."""
    return ir.Constant(vector, [value] * vector.count)


def of_element(vector: ir.VectorType, element: ir.Type) -> ir.VectorType:
    """Return the type of as many lanes of another element."""
    return ir.VectorType(element, vector.count)


def call(builder: Builder, name: str, *args: ir.Value) -> ir.Value:
    """Call LLVM's overloaded function `name` on arguments of one vector type."""
    kind = args[0].type
    full_name = f"llvm.{name}.v{kind.count}f{64 if kind.element == F64 else 32}"
    signature = ir.FunctionType(kind, [kind] * len(args))
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, full_name), args)


def is_finite(builder: Builder, x: ir.Value) -> ir.Value:
    """Compare |x| with infinity: false for NaN too."""
    return builder.fcmp_ordered("<", call(builder, "fabs", x), constant(x.type, math.inf))


def fill(builder: Builder, vector: ir.VectorType, scalar: ir.Value) -> ir.Value:
    """Put `scalar` into every lane."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, I32(0))
    return builder.shuffle_vector(first, first, constant(of_element(vector, I32), 0))


def power_bits(builder: Builder, x: ir.Value) -> ir.Value:
    """Return e · 2^23, as integers, with x = m · 2^e and m in [√½, √2)."""
    ints = of_element(x.type, I32)
    above = builder.sub(builder.bitcast(x, ints), constant(ints, 0x3F3504F3))  # the bits of √½
    return builder.and_(above, constant(ints, -0x800000))


# ---- arrays


def load_vector(
    context: Any, builder: Builder, array: types.Array, value: ir.Value, index: ir.Value, vector: VectorType
) -> ir.Value:
    """Load neighbours of an array of float32, or of uint16 that are the bits of halves."""
    if array.dtype == types.float32:
        return builder.load(pointer(context, builder, array, value, index, vector.ir_type), align=4)
    if _has_halves(context):
        halves = of_element(vector.ir_type, ir.HalfType())
        half = builder.load(pointer(context, builder, array, value, index, halves), align=2)
        wide = builder.fpext(half, vector.ir_type)
        # What is not finite becomes NaN, everything else stays as it is: 0 times infinity is NaN.
        return call(builder, "fmuladd", wide, constant(vector.ir_type, 0.0), wide)
    bits = of_element(vector.ir_type, ir.IntType(16))
    return _widen_half(builder, builder.load(pointer(context, builder, array, value, index, bits), align=2))


def load_everywhere(
    context: Any, builder: Builder, array: types.Array, value: ir.Value, index: ir.Value, vector: VectorType
) -> ir.Value:
    """Load one float32 into every lane."""
    scalar = builder.load(pointer(context, builder, array, value, index, F32), align=4)
    return fill(builder, vector.ir_type, scalar)


def pointer(
    context: Any, builder: Builder, array: types.Array, value: ir.Value, index: ir.Value, to: ir.Type
) -> ir.Value:
    """Return the address of element `index` as a pointer to `to`."""
    data = context.make_array(array)(context, builder, value).data
    item = context.get_data_type(array.dtype)
    offset = builder.mul(index, I64(array.dtype.bitwidth // 8), flags=("nsw",))
    # These casts suit LLVM with typed pointers and with opaque ones.
    base = builder.bitcast(data, item.as_pointer())
    return builder.bitcast(cgutils.pointer_add(builder, base, offset), to.as_pointer())


def _has_halves(context: Any) -> bool:
    """Return whether the processor that is compiled for converts halves by an instruction."""
    triple, _, features = context.codegen().magic_tuple()
    return "+f16c" in features.split(",") or triple.startswith(("aarch64", "arm64"))


def _widen_half(builder: Builder, half: ir.Value) -> ir.Value:
    """Turn <n x i16>, the bits of halves, into <n x float>; what is not finite becomes NaN."""
    floats, ints = of_element(half.type, F32), of_element(half.type, I32)
    # Sign at bit 31, exponent and fraction from bit 27 down. The exponent is still biased by 15 instead of 127:
    # multiplying by 2^112 corrects that, denormals included.
    shifted = builder.shl(builder.sext(half, ints), constant(ints, 13))
    bits = builder.and_(shifted, constant(ints, -0x70002000))
    value = builder.fmul(builder.bitcast(bits, floats), constant(floats, 2.0**112))
    finite = builder.fcmp_ordered("<", call(builder, "fabs", value), constant(floats, 65536.0))
    return builder.select(finite, value, constant(floats, math.nan))


# ---- making operations


def operation(emit: Emit) -> Any:
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


def conversion(element: types.Float, instruction: str) -> Any:
    """Make a Numba operation that turns a vector into one of another float by one LLVM instruction."""

    def convert(typingctx: Any, x: Any) -> Any:
        if not isinstance(x, VectorType):
            return None
        vector = VectorType(element, x.lanes)

        def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
            return getattr(builder, instruction)(args[0], vector.ir_type)

        return vector(x), codegen

    return intrinsic(convert)


def permutation(indices: Sequence[int]) -> Any:
    """Make a Numba operation that picks lanes, by fixed `indices`, out of two vectors laid end to end."""

    def permute(typingctx: Any, a: Any, b: Any) -> Any:
        if not isinstance(a, VectorType) or a != b:
            return None

        def codegen(context: Any, builder: Builder, signature: Any, args: Values) -> ir.Value:
            mask = ir.Constant(ir.VectorType(I32, len(indices)), list(indices))
            return builder.shuffle_vector(args[0], args[1], mask)

        return VectorType(a.element, len(indices))(a, b), codegen

    return intrinsic(permute)
