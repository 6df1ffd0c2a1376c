"""A model is described exactly, and its numbers cross the wire bit for bit and without a copy."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shared.errors import ConfigError, SpecMismatch
from shared.tensors import ModelSpec, TensorSpec, raw, sha256
from tests.support.examples import DTYPES, MODEL, SPEC, same, same_tensors

shapes = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


def bits(dtype: np.dtype[np.generic], shape: tuple[int, ...], data: bytes) -> np.ndarray:
    """An array of any bits at all: NaN, infinity, subnormals."""
    count = int(np.prod(shape)) * dtype.itemsize
    whole = np.resize(np.frombuffer(data or b"\0", np.uint8), count)
    return (whole % 2 if dtype.kind == "b" else whole).view(dtype).reshape(shape)


anything = st.builds(bits, st.sampled_from(DTYPES), shapes, st.binary(max_size=64))


def test_a_spec_lists_names_dtypes_and_shapes_in_the_models_order() -> None:
    assert SPEC.tensors == (
        TensorSpec("net.weight", "float32", (2, 3)),
        TensorSpec("net.half", "float16", (3,)),
        TensorSpec("net.brain", "bfloat16", (4,)),
        TensorSpec("norm.count", "int64", ()),
        TensorSpec("norm.frozen", "bool", (3,)),
        TensorSpec("net.unused", "float32", (0, 4)),
    )
    assert str(SPEC.tensors[0]) == "net.weight float32[2, 3]"


def test_a_spec_counts_numbers_and_bytes_without_padding() -> None:
    assert [tensor.nbytes for tensor in SPEC.tensors] == [24, 6, 8, 8, 3, 0]
    assert SPEC.nbytes == 49
    assert SPEC.parameters == 6 + 3 + 4 + 1 + 3


def test_only_floats_can_be_averaged() -> None:
    model = {array.name: np.zeros(1, array) for array in DTYPES}
    assert [tensor.name for tensor in ModelSpec.of(model).tensors if tensor.is_float] == [
        "float16", "bfloat16", "float32", "float64",
    ]  # fmt: skip


def test_a_dtype_that_cannot_cross_the_wire_is_refused_with_those_that_can() -> None:
    with pytest.raises(
        ConfigError, match=r"tensor 'w' has dtype complex64, which cannot be federated; convert .* float16, bfl"
    ):
        ModelSpec.of({"w": np.zeros(2, np.complex64)})


def test_a_tensor_of_four_gibibytes_is_refused() -> None:
    huge = np.broadcast_to(np.float32(0), (2**30,))  # takes four bytes, says it takes 2**32
    with pytest.raises(ConfigError, match="tensor 'w' takes 4294967296 bytes; 4 GiB is the most"):
        ModelSpec.of({"w": huge})


def test_the_digest_is_of_the_compact_json_of_names_dtypes_and_shapes() -> None:
    spec = ModelSpec.of({"größe": np.zeros((2, 3), np.float32), 'n"\\\n\x1b\x7f': np.array(1)})
    text = json.dumps(
        [["größe", "float32", [2, 3]], ['n"\\\n\x1b\x7f', "int64", []]], separators=(",", ":"), ensure_ascii=False
    )
    assert spec.digest == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_equal_specs_have_equal_digests_and_others_have_others() -> None:
    w, b = np.zeros((2, 3), np.float32), np.zeros(3, np.float32)
    specs = [
        ModelSpec.of(model)
        for model in (
            {"w": w, "b": b}, {"b": b, "w": w}, {"w": w}, {"w": w.T, "b": b}, {"w": w.astype("f8"), "b": b},
            {"W": w, "b": b},
        )
    ]  # fmt: skip
    assert len({spec.digest for spec in specs}) == len(specs)
    assert ModelSpec.of({"w": w + 1, "b": b}).digest == specs[0].digest
    assert len(specs[0].digest) == 16


@settings(deadline=None)
@given(array=anything)
def test_every_array_comes_back_bit_for_bit(array: np.ndarray) -> None:
    model = {"x": array}
    assert same(ModelSpec.of(model).views([raw(array)])["x"], array)


def test_views_are_read_only_and_no_copies() -> None:
    segments = [bytes(raw(array)) for array in MODEL.values()]
    views = SPEC.views(segments)
    assert same_tensors(views, MODEL)
    assert not any(view.flags.writeable for view in views.values())
    assert np.shares_memory(views["net.weight"], np.frombuffer(segments[0], np.uint8))


def test_views_of_writable_memory_are_read_only_too() -> None:
    view = ModelSpec.of({"w": np.zeros(2)}).views([memoryview(bytearray(16))])["w"]
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1.0


def test_another_number_of_tensors_does_not_fit() -> None:
    with pytest.raises(SpecMismatch, match="5 tensors came, the model has 6"):
        SPEC.views([bytes(raw(array)) for array in list(MODEL.values())[:5]])


@pytest.mark.parametrize("length", [0, 23, 25, 48])
def test_another_length_does_not_fit(length: int) -> None:
    segments = [bytes(raw(array)) for array in MODEL.values()]
    with pytest.raises(SpecMismatch, match=rf"net.weight float32\[2, 3\] takes 24 bytes, {length} came"):
        SPEC.views([bytes(length), *segments[1:]])


def test_the_first_difference_between_two_specs_is_said_in_words() -> None:
    other = ModelSpec.of({**MODEL, "net.half": np.zeros(4, np.float16)})
    shorter = ModelSpec.of({"net.weight": MODEL["net.weight"]})
    assert SPEC.difference(ModelSpec.of(MODEL)) is None
    assert SPEC.difference(other) == "net.half float16[4] instead of net.half float16[3]"
    assert SPEC.difference(shorter) == "1 tensors instead of 6"


def test_what_lies_right_already_crosses_the_wire_without_a_copy() -> None:
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    assert np.shares_memory(np.frombuffer(raw(array), np.uint8), array)


def test_other_byte_orders_and_layouts_cross_the_wire_as_little_endian_c() -> None:
    wanted = np.arange(6, dtype="<f4").reshape(2, 3)
    for array in (wanted.astype(">f4"), np.asfortranarray(wanted), wanted.repeat(2, axis=1)[:, ::2]):
        assert bytes(raw(array)) == wanted.tobytes()
        assert sha256({"w": array}) == sha256({"w": wanted})


def test_a_models_hash_is_over_the_specs_digest_and_then_the_bytes_of_all_tensors() -> None:
    everything = SPEC.digest.encode("ascii") + b"".join(array.tobytes() for array in MODEL.values())
    assert sha256(MODEL) == hashlib.sha256(everything).hexdigest()


@pytest.mark.parametrize("name", ["net.weight", "net.half", "net.brain", "norm.count"])
def test_one_bit_makes_another_hash(name: str) -> None:
    flipped = bytearray(raw(MODEL[name]))
    flipped[-1] ^= 1
    changed = np.frombuffer(flipped, MODEL[name].dtype).reshape(MODEL[name].shape)
    assert sha256({**MODEL, name: changed}) != sha256(MODEL)
