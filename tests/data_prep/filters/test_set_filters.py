"""Set-level filters: right pairs, right survivors, and the same ones whatever the order of rows."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import TypeAdapter

from data_prep.filters import near
from data_prep.filters.columns import columns, judge_candidate, judge_scores, problems
from data_prep.filters.config import EvaluationSet, FiltersConfig, Threshold
from data_prep.filters.contamination import References, contaminated, open_references
from data_prep.filters.duplicates import embedding_duplicates, exact_duplicates, perceptual_duplicates, resolve
from data_prep.filters.near import Pairs, masks, near_pairs
from data_prep.filters.sets import filter_set
from data_prep.filters.texts import caption_duplicates
from dreamline.config import ConfigError
from dreamline.media.jpeg import encode_jpeg
from dreamline.media.phash import phash_both


def _shuffled(table: pa.Table, seed: int) -> pa.Table:
    return table.take(pa.array(np.random.default_rng(seed).permutation(table.num_rows)))


def _lines(evidence: pa.Table) -> set[tuple]:
    return {tuple(line.values()) for line in evidence.to_pylist()}


def _dropped(evidence: pa.Table) -> dict[str, str]:
    return dict(zip(evidence["row"].to_pylist(), evidence["matched"].to_pylist(), strict=True))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 12), st.integers(0, 2**32 - 1), st.integers(0, 120), st.integers(0, 120))
def test_near_pairs_are_all_pairs_within_the_distance(distance, seed, num_left, num_right):
    random = np.random.default_rng(seed)
    centres = random.integers(0, 2**63, 12, dtype=np.uint64)

    def around(num):
        flips = np.zeros(num, np.uint64)
        for _ in range(int(random.integers(0, 10))):
            flips ^= np.left_shift(np.uint64(1), random.integers(0, 64, num, dtype=np.uint64))
        return centres[random.integers(0, 12, num)] ^ flips

    left, right = around(num_left), around(num_right)
    apart = np.bitwise_count(left[:, None] ^ right[None])
    wanted = np.argwhere(apart <= distance)
    pairs = near_pairs(left, right, distance)
    assert np.array_equal(np.stack([pairs.left, pairs.right], 1).reshape(-1, 2), wanted)
    assert np.array_equal(pairs.distance, apart[tuple(wanted.T)])


def test_pairs_do_not_depend_on_how_many_are_compared_at_a_time(monkeypatch):
    values = np.repeat(np.random.default_rng(3).integers(0, 2**63, 20, dtype=np.uint64), 30)
    whole = near_pairs(values, values, 2)
    assert len(whole) == 20 * 30 * 30
    for chunk in (1, 70, 1000):
        monkeypatch.setattr(near, "_CHUNK", chunk)
        parts = near_pairs(values, values, 2)
        assert np.array_equal(parts.left, whole.left)
        assert np.array_equal(parts.right, whole.right)


def test_work_grows_far_below_the_square():
    """Ten times as many hashes: the pairs to compare and rows to sort grow about as the number, not as its square."""

    def work(num):
        tables = masks(4, num, num)
        compared = sum(2.0 ** -int(np.bitwise_count(mask)) for mask in tables) * num * num
        return compared + len(tables) * num * np.log2(num)

    assert work(1_000_000) < 25 * work(100_000)
    assert work(1_000_000) < 1e12 / 1000


def test_chains_direct_and_connected():
    chain = Pairs(np.array([0, 1, 2]), np.array([1, 2, 3]), np.array([1.0, 2.0, 3.0]))
    assert resolve(5, chain, "direct")[0].tolist() == [-1, 0, -1, 2, -1]
    match, distance = resolve(5, chain, "chain")
    assert match.tolist() == [-1, 0, 1, 2, -1]
    assert distance.tolist() == [0, 1, 2, 3, 0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=30))
def test_linkages_agree_with_their_definitions(edges):
    unique = sorted({(min(edge), max(edge)) for edge in edges if edge[0] != edge[1]})
    pairs = Pairs(*(np.array([edge[side] for edge in unique], np.int64) for side in (0, 1)), np.ones(len(unique)))
    kept = {item for item in range(15) if resolve(15, pairs, "direct")[0][item] < 0}
    assert all(not (i in kept and j in kept) for i, j in unique)
    assert all(any(i in kept for i, j in unique if j == item) for item in set(range(15)) - kept)
    group = {item: {item} for item in range(15)}
    for i, j in unique:
        joined = group[i] | group[j]
        for item in joined:
            group[item] = joined
    kept = {item for item in range(15) if resolve(15, pairs, "chain")[0][item] < 0}
    assert kept == {min(members) for members in group.values()}


def test_exact_duplicates_keep_the_largest_then_the_smallest_key(candidate, nature):
    one, two = nature(1), nature(2)
    rows = [
        candidate(one, row="small", size=(100, 100), key="aa"),
        candidate(one, row="large", size=(900, 900), key="bb"),
        candidate(one, row="large too", size=(900, 900), key="cc"),
        candidate(two, row="other", key="dd"),
        candidate(two, row="edit", source=one, text="make it day", key="ee"),
        candidate(two, row="same edit", source=one, text="Make it day!", key="ff"),
        candidate(two, row="other words", source=one, text="make it night", key="gg"),
        candidate(two, row="other source", source=nature(3), text="make it day", key="hh"),
    ]
    for of in ("bytes", "pixels"):
        assert _dropped(exact_duplicates(columns(rows), of)) == {"small": "bb", "large too": "bb", "same edit": "ee"}


def test_perceptual_duplicates_of_resized_recoded_and_mirrored_pictures(candidate, nature):
    """Copies are found, different pictures are not, in either orientation."""
    rows, copies = [], {}
    for seed in range(40):
        picture = nature(seed)
        rows.append(candidate(picture, row=f"p{seed}", key=f"k{seed:03d}", size=(2000, 1500)))
        small = cv2.resize(picture, (256, 192), interpolation=cv2.INTER_AREA)
        recoded = cv2.imdecode(np.frombuffer(encode_jpeg(small, 60), np.uint8), cv2.IMREAD_COLOR_RGB)
        for name, copy in (("jpeg", recoded), ("mirror", recoded[:, ::-1].copy())):
            rows.append(candidate(copy, row=f"{name}{seed}"))
            copies[f"{name}{seed}"] = f"k{seed:03d}"
    found = perceptual_duplicates(columns(rows), 4)
    assert {row: key for row, key in _dropped(found).items() if copies.get(row) != key} == {}
    assert len(_dropped(found)) >= 0.95 * len(copies)
    kinds = {line["row"]: line["kind"] for line in found.to_pylist()}
    assert all(kind == ("phash_mirrored" if row.startswith("mirror") else "phash") for row, kind in kinds.items())
    upright = perceptual_duplicates(columns(rows), 4, mirrored=False)
    assert all(row.startswith("jpeg") for row in _dropped(upright))


def test_flat_pictures_are_no_duplicates_of_each_other(candidate):
    red, blue = (np.full((32, 32, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    assert perceptual_duplicates(columns([candidate(red, row="a"), candidate(blue, row="b")]), 6).num_rows == 0


def test_edits_are_duplicates_only_with_both_pictures_and_the_instruction(candidate, nature):
    one, two, three = nature(1), nature(2), nature(3)
    dim = (two * 0.97).astype(np.uint8)
    rows = [
        candidate(two, row="a", key="a", source=one, text="make it day", size=(999, 999)),
        candidate(dim, row="same", source=one, text="make it day"),
        candidate(dim, row="other words", source=one, text="add a fox"),
        candidate(dim, row="other source", source=three, text="make it day"),
        candidate(dim, row="no edit", text="make it day"),
        candidate(dim[:, ::-1].copy(), row="mirrored", source=one[:, ::-1].copy(), text="make it day"),
        candidate(dim[:, ::-1].copy(), row="half mirrored", source=one, text="make it day"),
    ]
    assert _dropped(perceptual_duplicates(columns(rows), 4)) == {"same": "a", "mirrored": "a"}


@pytest.mark.parametrize("linkage", ["direct", "chain"])
def test_results_do_not_depend_on_the_order_of_rows(linkage):
    random = np.random.default_rng(5)
    centres = random.integers(1, 2**62, 30)
    hashes = [
        int(centre) ^ (1 << int(bit))
        for centre, bit in zip(centres.repeat(20), random.integers(0, 60, 600), strict=True)
    ]
    embeddings = (centres.repeat(20)[:, None] % np.arange(3, 19) + random.normal(size=(600, 16))).astype(np.float16)
    table = pa.table(
        {
            "source_name": ["s"] * 600, "row": [f"r{index}" for index in range(600)],
            "key": [f"{index % 590:04d}" for index in range(600)], "kind": ["t2i"] * 600,
            "width": random.integers(500, 503, 600).astype(np.int32), "height": [500] * 600,
            "sha256": [str(index % 550) for index in range(600)],
            "pixel_sha256": [str(index % 540) for index in range(600)],
            "phash": hashes, "phash_mirrored": [value ^ 0x5555 for value in hashes],
            **{f"source_{name}": pa.nulls(600, pa.string()) for name in ("sha256", "pixel_sha256")},
            **{f"source_{name}": pa.nulls(600, pa.int64()) for name in ("phash", "phash_mirrored")},
            "text": [f"a picture of {index % 7} foxes and {index % 50} hens in the deep snow" for index in range(600)],
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), 16),
        }
    )  # fmt: skip
    for judge in (
        exact_duplicates,
        lambda rows: perceptual_duplicates(rows, 2, linkage=linkage),
        lambda rows: embedding_duplicates(rows, 0.995, linkage, block=128),
        lambda rows: caption_duplicates(rows, 0.6, linkage=linkage),
    ):
        wanted = _lines(judge(table))
        assert 0 < len(wanted) < 600
        assert all(_lines(judge(_shuffled(table, seed))) == wanted for seed in range(3))


def test_embedding_duplicates_against_all_pairs(candidate):
    random = np.random.default_rng(1)
    centres = random.normal(size=(20, 32))
    vectors = np.repeat(centres, 5, 0) + 0.1 * random.normal(size=(100, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    blank = np.zeros((4, 4, 3), np.uint8)
    table = columns([candidate(blank, row=f"r{index}", key=f"{index:03d}") for index in range(100)], vectors)
    found = embedding_duplicates(table, 0.97, block=16)
    exact = vectors.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    cosine = exact @ exact.T
    kept = [index for index in range(100) if f"r{index}" not in _dropped(found)]
    assert all(cosine[i, j] < 0.9701 for i in kept for j in kept if i != j)
    for line in found.to_pylist():
        value = cosine[int(line["row"][1:]), int(line["matched"])]
        assert value >= 0.9699
        assert line["distance"] == pytest.approx(1 - value, abs=1e-3)
        assert int(line["matched"]) in kept
    with pytest.raises(ValueError, match="embedder"):
        embedding_duplicates(table.drop_columns(["embedding"]))


def test_caption_duplicates_against_all_pairs(candidate):
    random = np.random.default_rng(0)
    vocabulary = [f"word{index}" for index in range(200)]
    texts = []
    for _ in range(60):
        words = list(random.choice(vocabulary, 25))
        texts.append(" ".join(words))
        for _ in range(2):  # near copies
            words[int(random.integers(25))] = "changed"
            texts.append(" ".join(words))
    blank = np.zeros((4, 4, 3), np.uint8)
    table = columns([candidate(blank, text, row=f"r{index}", key=f"{index:03d}") for index, text in enumerate(texts)])
    found = caption_duplicates(table, 0.7, ngram=2)

    def jaccard(one, other):
        a, b = (set(zip(text.split(), text.split()[1:], strict=False)) for text in (one, other))
        return len(a & b) / len(a | b)

    kept = [index for index in range(180) if f"r{index}" not in _dropped(found)]
    assert all(jaccard(texts[i], texts[j]) < 0.7 for i in kept for j in kept if i < j)
    for line in found.to_pylist():
        assert jaccard(texts[int(line["row"][1:])], texts[int(line["matched"])]) == pytest.approx(1 - line["distance"])
        assert line["distance"] <= 0.3 + 1e-9
    assert 60 <= len(kept) < 130


def test_an_instruction_is_a_duplicate_only_about_the_same_picture(candidate, nature):
    """Also in numbers: a thousand edits of different pictures that all say the same are compared with nothing."""
    one, two = nature(1), nature(2)
    rows = [
        candidate(one, "make it red", row="caption", key="a"),
        candidate(two, "make it red", row="same caption", key="b"),
        candidate(two, "Make it red!", row="edit", key="c", source=one),
        candidate(nature(3), "make it red", row="same words", key="d", source=one),
        candidate(nature(4), "make it blue", row="other words", key="e", source=one),
        candidate(one, "make it red", row="other source", key="f", source=two),
    ]
    assert _dropped(caption_duplicates(columns(rows))) == {"same caption": "a", "same words": "c"}
    near = [
        candidate(two, f"paint the old house by the lake in {word}", row=word, source=one) for word in ("red", "blue")
    ]
    assert caption_duplicates(columns(near), 0.7).num_rows == 1
    table = columns(rows[4:5] * 1000)
    sources = pa.array([f"{number:064x}" for number in range(1000)])
    place = table.schema.get_field_index("source_pixel_sha256")
    assert caption_duplicates(table.set_column(place, "source_pixel_sha256", sources)).num_rows == 0


def test_decontamination_keeps_the_pairs_as_evidence(tmp_path, candidate, nature):
    folder = tmp_path / "bench" / "inputs"
    folder.mkdir(parents=True)
    Image.fromarray(nature(1)).save(folder / "one.png")
    Image.fromarray(nature(2)).save(folder / "two.jpg", quality=92)
    (folder / "notes.txt").write_text("no picture")
    own, mirrored = phash_both(nature(3))
    lines = [
        {"id": "h3", "phash": f"{own:016x}", "phash_mirrored": f"{mirrored:016x}"},
        {"id": "bytes", "sha256": "ab" * 32},
    ]
    (tmp_path / "hashes.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    prompts = ["a photo of a bench", "two clocks hang over a green door next to a sleeping dog in the evening sun"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))
    sets = {
        "kind": "decontamination",
        "against": [
            {"name": "bench", "images": str(tmp_path / "bench"), "prompts": str(tmp_path / "prompts.txt")},
            {"name": "hashed", "hashes": str(tmp_path / "hashes.jsonl")},
        ],
    }
    small = cv2.resize(nature(1), (256, 192), interpolation=cv2.INTER_AREA)
    rows = [
        candidate(small, row="small copy"),
        candidate(nature(2)[:, ::-1].copy(), row="mirrored copy"),
        candidate(nature(9), row="edit of one", source=small, text="make it day"),
        candidate(nature(3), row="hashed"),
        candidate(nature(4), row="prompt", text="A photo of a bench."),
        candidate(nature(5), row="long prompt", text="Look: " + prompts[1].upper() + ", seen from afar"),
        candidate(nature(6), row="clean", text="a photo of a bench and a fox"),
    ]
    rules = FiltersConfig.model_validate({"sets": [sets]}).sets
    kept, evidence = filter_set(columns(rows), rules)
    assert kept["row"].to_pylist() == ["clean"]
    found = {(line["row"], line["matched"], line["kind"]) for line in evidence.to_pylist()}
    assert found == {
        ("small copy", "bench:inputs/one.png", "phash"),
        ("mirrored copy", "bench:inputs/two.jpg", "phash_mirrored"),
        ("edit of one", "bench:inputs/one.png", "source_phash"),
        ("hashed", "hashed:h3", "phash"),
        ("prompt", "bench:0", "caption"),
        ("long prompt", "bench:1", "caption"),
    }
    told = problems(evidence)
    assert told["test", "prompt"].reason == "contaminated"
    assert "bench:0 by caption" in told["test", "prompt"].detail
    assert _lines(filter_set(_shuffled(columns(rows), 1), rules)[1]) == _lines(evidence)


def test_mirrored_references_match_with_either_sides_mirrored_hash(candidate, nature):
    picture = nature(1)
    table = columns([candidate(picture[:, ::-1].copy(), row="flipped")])
    own, mirrored = (np.array([value], np.uint64) for value in phash_both(picture))
    none = np.zeros(1, np.uint64)
    for known in (References("e", ("a",), (None,), own, none), References("e", ("a",), (None,), ~own, mirrored)):
        assert contaminated(table, [known], 4)["kind"].to_pylist() == ["phash_mirrored"]
    assert contaminated(table, [References("e", ("a",), (None,), ~own, none)], 4).num_rows == 0


def test_references_are_read_from_tables_of_any_format(tmp_path):
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": ["a"], "phash": [-(2**60)], "phash_mirrored": [5]}), tmp_path / "h.parquet")
    (tmp_path / "p.csv").write_text("id,text\n7,two foxes\n")
    (tmp_path / "p.json").write_text(json.dumps(["one fox", "two foxes"]))
    hashed = open_references(EvaluationSet(name="e", hashes=str(tmp_path / "h.parquet")))
    assert int(hashed.phash[0]) == 2**64 - 2**60
    by_column = EvaluationSet(name="e", prompts=str(tmp_path / "p.csv"), prompt_column="text")
    assert open_references(by_column).prompts == (("7", "two foxes"),)
    assert [text for _, text in open_references(EvaluationSet(name="e", prompts=str(tmp_path / "p.json"))).prompts] == [
        "one fox",
        "two foxes",
    ]


@pytest.mark.parametrize(
    ("name", "content", "field", "match"),
    [
        ("x.jsonl", '{"phash": "xyz"}', "hashes", "row 0.*16 hex"),
        ("x.jsonl", '{"id": "a"}', "hashes", "neither"),
        ("x.jsonl", "{", "hashes", "cannot be read"),
        ("x.csv", "id,text\n1,a\n", "prompts", "set prompt_column"),
        ("x.json", '{"a": 1}', "prompts", "list"),
        ("bad/x.png", "no picture", "images", "x.png"),
        ("empty/x.txt", "", "images", "no pictures"),
    ],
)
def test_unreadable_evaluation_sets_are_errors(tmp_path, name, content, field, match):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(ConfigError, match=match):
        open_references(EvaluationSet(name="e", **{field: str(path.parent if field == "images" else path)}))


def test_rules_run_in_order_on_what_is_left(candidate, nature):
    picture = nature(1)
    rows = [candidate(picture, "a fox", row=f"r{index}", key=f"{index}") for index in range(3)]
    rows.append(candidate(cv2.GaussianBlur(picture, (3, 3), 0), "a hen", row="r3", key="3"))
    rules = FiltersConfig.model_validate(
        {"sets": [{"kind": "exact_duplicates"}, {"kind": "perceptual_duplicates"}]}
    ).sets
    kept, evidence = filter_set(columns(rows), rules)
    assert kept["row"].to_pylist() == ["r0"]
    assert evidence["reason"].to_pylist() == ["exact_duplicate"] * 2 + ["perceptual_duplicate"]
    empty, none = filter_set(columns([]), rules)
    assert (empty.num_rows, none.num_rows) == (0, 0)


def test_thresholds_decide_on_stored_scores(candidate):
    blank = np.zeros((4, 4, 3), np.uint8)
    scores = [{"aesthetic": 4.0, "nsfw": 0.1}, {"aesthetic": 6.0, "nsfw": 0.9}, {"aesthetic": 6.0}, {}]
    made = [candidate(blank, row=f"r{index}", scores=row) for index, row in enumerate(scores)]
    table = columns(made)
    for rules, wanted in (
        ([{"score": "aesthetic", "min": 5}], ["score_aesthetic", None, None, "score_missing"]),
        ([{"score": "nsfw", "max": 0.5, "on_missing": "keep"}], [None, "score_nsfw", None, None]),
        ([{"score": "other", "min": 0}], ["score_missing"] * 4),
        ([{"score": "other", "min": 0, "on_missing": "keep"}], [None] * 4),
    ):
        thresholds = TypeAdapter(list[Threshold]).validate_python(rules)
        verdicts = judge_scores(table, thresholds)
        assert [verdict and verdict.reason for verdict in verdicts] == wanted
        assert verdicts == [judge_candidate(item, thresholds) for item in made]
