"""Embedding duplicates of samples that are held elsewhere: the right ones, in little memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from data_prep.filters.columns import columns
from data_prep.filters.duplicates import embedding_duplicates


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def held_table(vectors, names, kind="t2i", text=None):
    flat = pa.array(np.ascontiguousarray(vectors, np.float16).ravel())
    lists = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    count = len(vectors)
    return pa.table(
        {"key": names, "kind": [kind] * count, "text": pa.array([text] * count, pa.string()), "embedding": lists}
    )


@pytest.mark.parametrize("linkage", ["direct", "chain"])
def test_what_is_near_a_held_sample_goes(candidate, linkage):
    random = np.random.default_rng(2)
    held = random.normal(size=(50, 32))
    new = random.normal(size=(40, 32))
    new[:10] = held[20:30] + 0.02 * random.normal(size=(10, 32))  # near a held one
    new[10:15] = new[30:35] + 0.02 * random.normal(size=(5, 32))  # near each other
    held, new = unit(held), unit(new)
    blank = np.zeros((4, 4, 3), np.uint8)
    table = columns([candidate(blank, row=f"r{index}", key=f"{index:03d}") for index in range(40)], new)
    names = [f"held{index}" for index in range(50)]
    parts = [held_table(held[start : start + 16], names[start : start + 16]) for start in range(0, 50, 16)]
    found = embedding_duplicates(table, 0.97, linkage, block=16, held=iter(parts))
    matched = dict(zip(found["row"].to_pylist(), found["matched"].to_pylist(), strict=True))
    assert {row: key for row, key in matched.items() if key.startswith("held")} == {
        f"r{index}": f"held{index + 20}" for index in range(10)
    }
    assert {row: key for row, key in matched.items() if not key.startswith("held")} == {
        f"r{index + 30}": f"{index + 10:03d}" for index in range(5)
    }
    cosine = (new[:10].astype(np.float64) * held[20:30]).sum(axis=1)
    told = dict(zip(found["row"].to_pylist(), found["distance"].to_pylist(), strict=True))
    assert [told[f"r{index}"] for index in range(10)] == pytest.approx(1 - cosine, abs=2e-3)
    assert embedding_duplicates(table.slice(0, 0), held=iter(parts)).num_rows == 0


def test_a_chain_that_begins_at_a_held_sample_goes_as_a_whole(candidate):
    angles = np.array([0.0, 0.2, 0.4, 1.5])
    vectors = unit(np.stack([np.cos(angles), np.sin(angles)], 1))
    blank = np.zeros((4, 4, 3), np.uint8)
    table = columns([candidate(blank, row=f"r{index}", key=f"{index}") for index in range(1, 4)], vectors[1:])
    held = [held_table(vectors[:1], ["held"])]
    assert embedding_duplicates(table, 0.97, "direct", held=held)["row"].to_pylist() == ["r1"]
    chain = embedding_duplicates(table, 0.97, "chain", held=held).to_pylist()
    assert {(line["row"], line["matched"]) for line in chain} == {("r1", "held"), ("r2", "1")}


def test_edits_are_compared_with_held_edits_of_the_same_instruction(candidate, nature):
    vector = unit(np.ones((1, 8)))
    edit = candidate(nature(1), "Make it red!", row="edit", source=nature(2))
    table = columns([edit], vector)
    for kind, text, wanted in (("edit", "make it red", 1), ("edit", "make it blue", 0), ("t2i", None, 0)):
        held = [held_table(vector, ["held"], kind, text)]
        assert embedding_duplicates(table, 0.9, held=held).num_rows == wanted


def test_rows_without_an_embedding_take_no_part(candidate, nature):
    table = columns([candidate(nature(seed), row=f"r{seed}") for seed in range(3)])
    vector = np.ones(8, np.float16)
    table = table.append_column("embedding", pa.array([vector, None, vector], pa.large_list(pa.float16())))
    assert embedding_duplicates(table, 0.9)["row"].to_pylist() in (["r0"], ["r2"])
    assert embedding_duplicates(table.slice(1, 1), 0.9, held=[held_table(vector[None], ["held"])]).num_rows == 0


def test_memory_does_not_grow_with_what_is_held(candidate):
    blank = np.zeros((4, 4, 3), np.uint8)
    random = np.random.default_rng(0)
    table = columns([candidate(blank, row=f"r{index}") for index in range(100)], unit(random.normal(size=(100, 64))))

    def parts(count):
        for _ in range(count):
            yield held_table(unit(random.normal(size=(2048, 64))), ["held"] * 2048)

    peaks = []
    for count in (2, 20):
        tracemalloc.start()
        embedding_duplicates(table, 0.97, held=parts(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
