"""Values go into words and come out as they were."""

from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from gur_spark.features.kernel.packing import WORD_BITS, Packing

widths = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, WORD_BITS), min_size=1, max_size=9)


@given(widths, st.data())
def test_unpacked_values_equal_the_packed_ones_and_null_words_give_nulls(bits: dict[str, int], data: Any) -> None:
    packing = Packing.of(bits)
    row = st.fixed_dictionaries({name: st.integers(0, 2**width - 1) for name, width in bits.items()})
    rows = data.draw(st.lists(st.none() | row, min_size=1, max_size=5))
    words = {
        name: [
            None if r is None else sum(r[n] << p.shift for n, p in packing.places.items() if p.word == number)
            for r in rows
        ]
        for number, name in enumerate(packing.words)
    }
    batch = pa.RecordBatch.from_pydict(
        {"user_id": list(range(len(rows))), **{name: pa.array(w, pa.int64()) for name, w in words.items()}}
    )
    expected = [{"user_id": n} | (r or dict.fromkeys(bits)) for n, r in enumerate(rows)]
    assert packing.unpack(batch).to_pylist() == expected


@given(widths)
def test_places_do_not_overlap_and_no_word_is_too_wide(bits: dict[str, int]) -> None:
    taken = [(p.word, bit) for p in Packing.of(bits).places.values() for bit in range(p.shift, p.shift + p.bits)]
    assert len(taken) == len(set(taken)) == sum(bits.values())
    assert max(bit for _, bit in taken) < WORD_BITS


def test_an_age_and_three_small_categories_share_one_word() -> None:
    assert Packing.of({"age_us": 44, "mcc": 9, "channel": 4, "month": 4}).words == ["_word_0"]
    assert Packing.of({"age_us": 44, "item": 20, "channel": 4}).words == ["_word_0", "_word_1"]
