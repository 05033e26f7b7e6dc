"""The reward network: shapes, gradients, what it may look at, and saving."""

import pytest
import torch

from dreamline.config import ConfigError
from dreamline.rewards.config import SceneRewardConfig
from dreamline.rewards.reading import IGNORE, facets, labels
from dreamline.rewards.scene_reward import MAX_WORDS, SceneReward
from dreamline.rewards.vocabulary import PADDING, UNKNOWN, Vocabulary
from dreamline.scenes.world import Scene, SceneObject, World

WORLD = World()
PROMPTS = ["a red circle", "a blue square to the left of a green triangle"]


@pytest.fixture
def reward() -> SceneReward:
    torch.manual_seed(0)
    small = SceneRewardConfig(trunk_channels=(16, 32), width=32)
    return SceneReward(small, WORLD, Vocabulary.of([*PROMPTS, "make the circle green"])).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, WORLD.size, WORLD.size, generator=torch.Generator().manual_seed(1))


def test_gradient_reaches_every_picture(reward, images) -> None:
    images.requires_grad_()
    scores = reward.score(images, PROMPTS, torch.zeros_like(images))
    assert scores.shape == (2,)
    scores.sum().backward()
    assert (images.grad.flatten(1).norm(dim=1) > 0).all()


def test_each_row_is_judged_by_itself(reward, images) -> None:
    together = reward.score(images, PROMPTS)
    alone = torch.cat([reward.score(images[row : row + 1], PROMPTS[row : row + 1]) for row in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_prompt_and_source_count_but_only_for_edits(reward, images) -> None:
    words, sources = reward.words_of(PROMPTS), images.flip(0)
    generation, edit = torch.tensor([False, False]), torch.tensor([True, True])
    plain = reward(images[:, None], words, sources, generation).rewards
    torch.testing.assert_close(plain, reward(images[:, None], words, 1 - sources, generation).rewards)
    edited = reward(images[:, None], words, sources, edit).rewards
    assert not torch.allclose(edited, reward(images[:, None], words, 1 - sources, edit).rewards)
    assert not torch.allclose(plain, reward(images[:, None], words.flip(0), sources, generation).rewards)


def test_hidden_cells_are_guessed_without_a_look_at_them(reward, images) -> None:
    words, is_edit = reward.words_of(PROMPTS), torch.tensor([False, True])
    hidden = torch.ones(2, 4, dtype=torch.bool)
    groups = torch.stack([images, images.flip(0), 1 - images], dim=1)
    judged = reward(groups, words, images, is_edit, hidden)
    assert judged.rewards.shape == (2, 3)
    other = reward(1 - groups, words, images, is_edit, hidden)
    for name, number in facets(WORLD).items():
        assert judged.readings[name].shape == (2, 3, 4, number)
        assert judged.guesses[name].shape == (2, 4, number)
        torch.testing.assert_close(judged.guesses[name], other.guesses[name])
    assert not torch.allclose(judged.readings["shape"], other.readings["shape"])


def test_saved_and_loaded_it_says_the_same(reward, images, tmp_path) -> None:
    reward.save(tmp_path / "reward")
    loaded = SceneReward.load(tmp_path / "reward")
    assert torch.equal(loaded.score(images, PROMPTS), reward.score(images, PROMPTS))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert {path.name for path in (tmp_path / "reward").iterdir()} == {"config.json", "model.safetensors"}


def test_errors_say_what_to_do(reward, images, tmp_path) -> None:
    with pytest.raises(ConfigError, match="finished reward stage"):
        SceneReward.load(tmp_path)
    with pytest.raises(ValueError, match="2 images, 1 prompts"):
        reward.score(images, PROMPTS[:1])
    with pytest.raises(ValueError, match="1 sources"):
        reward.score(images, PROMPTS, images[:1])


def test_larger_worlds_have_more_to_read() -> None:
    world = World(size=64, grid=3, radius=8, sizes=("small", "normal"), styles=("filled", "outline"), max_objects=5)
    reward = SceneReward(SceneRewardConfig(trunk_channels=(16, 32), width=32), world, Vocabulary.of(PROMPTS))
    assert reward.score(torch.rand(2, 3, 64, 64), PROMPTS).shape == (2,)


def test_labels_name_every_cell() -> None:
    scene = Scene((SceneObject("square", "blue", 1, 0),), "grey")
    table = labels(scene, WORLD).tolist()
    empty = [0, 0, IGNORE, WORLD.backgrounds.index("grey"), IGNORE]
    square = [1 + WORLD.shapes.index("square"), 1 + WORLD.colours.index("blue"), 0, empty[3], 0]
    assert table == [empty, empty, square, empty]


def test_vocabulary_pads_and_knows_what_it_does_not_know() -> None:
    words = Vocabulary.of(["A red circle.", "red square"])
    assert words.words[2:] == (".", "a", "circle", "red", "square")
    rows = words.encode(["red circle", "a mauve square", ""])
    assert rows[0] == [words.numbers["red"], words.numbers["circle"], PADDING]
    assert rows[1][1] == UNKNOWN
    assert rows[2][0] == UNKNOWN
    assert Vocabulary(words.words).words == words.words


def test_very_long_prompts_are_cut(reward, images) -> None:
    assert reward.words_of(["red " * 500, "a"]).shape == (2, MAX_WORDS)
    assert torch.isfinite(reward.score(images, ["red " * 500, "a"])).all()
