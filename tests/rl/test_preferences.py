"""Preferences: the winner does what was asked, the losers do not, and everything follows from (seed, index)."""

from collections import Counter

import pytest
import torch

from dreamline.rewards.vocabulary import UNKNOWN, Vocabulary
from dreamline.scenes.captions import parse
from dreamline.scenes.facts import satisfies
from dreamline.scenes.sampling import has_held_out_pair, looks_of, split_of
from dreamline.scenes.world import World
from rl.preference_data import PreferenceData, training_prompts
from rl.preferences import SPOILS, sample_preference

RICH = World(
    size=64, grid=3, radius=6, jitter=1, max_objects=5, sizes=("small", "normal", "large"), styles=("filled", "outline")
)
NUM = 300


@pytest.mark.parametrize("world", [World(), RICH], ids=["demo", "rich"])
def test_winners_are_right_and_losers_wrong(world) -> None:
    for index in range(NUM):
        group = sample_preference(world, 0, index, "train", edit_share=0.0)
        facts = parse(group.prompt, world)
        assert satisfies(group.winner, facts)
        assert not any(satisfies(loser, facts) for loser in group.losers)
        assert len({group.winner, *group.losers}) == 1 + len(group.losers)


@pytest.mark.parametrize("world", [World(), RICH], ids=["demo", "rich"])
def test_wrong_edits_differ_from_the_target_and_are_called_by_name(world) -> None:
    for index in range(NUM):
        group = sample_preference(world, 0, index, "train", edit_share=1.0)
        assert group.source is not None
        assert group.winner != group.source
        assert len({group.winner, *group.losers}) == 1 + len(group.losers)
        for fault, loser in zip(group.faults, group.losers, strict=True):
            assert (fault == "no_op") == (loser == group.source)


def test_every_kind_of_fault_appears() -> None:
    groups = [sample_preference(RICH, 0, index, "train", edit_share=0.5) for index in range(1500)]
    faults = Counter((group.source is not None, fault) for group in groups for fault in group.faults)
    assert {fault for edit, fault in faults if not edit} == set(SPOILS)
    assert {fault for edit, fault in faults if edit} == {"no_op", "wrong_object", "wrong_value", "over_edit"}
    assert min(faults.values()) >= 10
    assert 0.45 < sum(group.source is not None for group in groups) / len(groups) < 0.55


def test_splits_are_kept_apart() -> None:
    world = World()
    for index in range(NUM):
        for split in ("train", "eval"):
            group = sample_preference(world, 0, index, split, edit_share=0.5)
            assert split_of(group.prompt, world) == split
            assert split == "eval" or not has_held_out_pair(looks_of(group.winner), world)


def test_a_position_gives_the_same_group_in_any_batch() -> None:
    data = PreferenceData(World(), 0, 0.5, torch.device("cpu"))
    whole, part = data.batch(range(6)), data.batch(range(4, 6))
    assert torch.equal(whole.images[4:], part.images)
    assert torch.equal(whole.sources[4:], part.sources)
    assert torch.equal(whole.labels[4:], part.labels)
    assert whole.prompts[4:] == part.prompts
    assert whole.images.shape == (6, 3, 3, 32, 32)
    assert 0 <= whole.images.min() < whole.images.max() <= 1
    assert not whole.sources[~whole.is_edit].any()
    other = PreferenceData(World(), 1, 0.5, torch.device("cpu"))
    assert other.identity != data.identity
    assert other.batch(range(6)).prompts != whole.prompts


def test_training_prompts_hold_every_word_of_evaluation_prompts() -> None:
    words = Vocabulary.of(training_prompts(World()))
    for index in range(NUM):
        group = sample_preference(World(), 5, index, "eval", edit_share=0.5)
        assert UNKNOWN not in words.encode([group.prompt])[0], group.prompt
