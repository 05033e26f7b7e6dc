"""The reward network of the scene world: reads a picture cell by cell and compares it with a prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from dreamline.config import Config, ConfigError, build
from dreamline.rewards.config import SceneRewardConfig
from dreamline.rewards.reading import facets
from dreamline.rewards.vocabulary import PADDING, Vocabulary
from dreamline.scenes.world import World
from dreamline.storage import publish_folder, write_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MAX_WORDS = 64


class SavedReward(Config):
    """Content of config.json."""

    kind: str = "scene"
    network: SceneRewardConfig
    world: World
    words: tuple[str, ...]


@dataclass(frozen=True)
class Judgement:
    """Rewards of K pictures for each of B prompts, and class scores of every facet of the cells."""

    rewards: Tensor  # [B, K]
    readings: dict[str, Tensor]  # [B, K, cells, classes], what each cell shows
    guesses: dict[str, Tensor]  # [B, cells, classes], what hidden cells of the first picture must be


class SceneReward(nn.Module):
    """A shared trunk turns pictures into one token a cell; these look at each other, at the source and at the words.

    The same trunk also answers what every cell shows (`Judgement.readings`). That task is learned within seconds and
    gives the comparison something to compare; ranking alone does not get off the ground in minutes.
    """

    def __init__(self, config: SceneRewardConfig, world: World, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config, self.world, self.vocabulary = config, world, vocabulary
        width, cells = config.width, world.grid**2
        self.trunk = Trunk(config, world.grid)
        self.readers = nn.ModuleDict({name: nn.Linear(width, number) for name, number in facets(world).items()})
        self.word = nn.Embedding(len(vocabulary), width, padding_idx=PADDING)
        self.phrase = nn.Conv1d(
            width, width, 3, padding=1
        )  # 'red' next to 'circle': binds before any attention is learned
        self.word_place = nn.Parameter(0.5 * torch.randn(MAX_WORDS, width))
        self.cell_place = nn.Parameter(0.5 * torch.randn(cells, width))
        self.guessers = nn.ModuleDict(
            {
                name: nn.Sequential(nn.LayerNorm(width), nn.Linear(width, number))
                for name, number in facets(world).items()
            }
        )
        self.veil = nn.Parameter(0.02 * torch.randn(width))  # stands for a hidden cell
        self.asked = nn.Parameter(0.02 * torch.randn(width))  # the token that becomes the verdict
        self.no_source = nn.Parameter(0.02 * torch.randn(width))
        self.compare = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.text = nn.ModuleList(Layer(width, config.num_heads, crossed=False) for _ in range(config.text_layers))
        self.judge = nn.ModuleList(Layer(width, config.num_heads, crossed=True) for _ in range(config.judge_layers))
        self.verdict = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def score(self, images: Tensor, prompts: Sequence[str], sources: Tensor | None = None) -> Tensor:
        """As `Reward.score`: images [B, 3, H, W] in [0, 1] -> rewards [B].

        Raises:
            ValueError: the numbers of pictures, prompts and sources differ.
        """
        if len(images) != len(prompts) or (sources is not None and len(sources) != len(images)):
            told = "none" if sources is None else len(sources)
            raise ValueError(f"{len(images)} images, {len(prompts)} prompts, {told} sources; give one of each")
        is_edit = torch.full((len(images),), sources is not None, device=images.device)
        shown = torch.zeros_like(images) if sources is None else sources
        rewards: Tensor = self(images[:, None], self.words_of(prompts), shown, is_edit).rewards[:, 0]
        return rewards

    def words_of(self, prompts: Sequence[str]) -> Tensor:
        """Word numbers [B, L], on the device of the network; what goes beyond MAX_WORDS is cut."""
        return torch.tensor(self.vocabulary.encode(prompts), device=self.asked.device)[:, :MAX_WORDS]

    def forward(
        self, images: Tensor, words: Tensor, sources: Tensor, is_edit: Tensor, hidden: Tensor | None = None
    ) -> Judgement:
        """Judge several pictures for each prompt.

        Args:
            images: [B, K, 3, H, W] in [0, 1].
            words: [B, L] word numbers.
            sources: [B, 3, H, W] in [0, 1]; not looked at where `is_edit` is false.
            is_edit: [B] bool.
            hidden: [B, cells] bool, cells of the first picture to guess from prompt, source and the other cells.
        """
        size, several = images.shape[:2]
        cells = self.trunk(torch.cat([images.flatten(0, 1), sources]))  # [B * K + B, cells, width]
        pictures, before = cells[: size * several].unflatten(0, (size, several)), cells[size * several :]
        before = torch.where(is_edit[:, None, None], before, self.no_source)
        readings = {name: read(pictures) for name, read in self.readers.items()}
        if hidden is not None:
            veiled = torch.where(hidden[:, :, None], self.veil, pictures[:, 0])
            pictures = torch.cat([pictures, veiled[:, None]], dim=1)
        tokens = self.compared(pictures, before, words)
        guesses = {}
        if hidden is not None:
            guesses = {name: guess(tokens[:, -1, 1:]) for name, guess in self.guessers.items()}
        return Judgement(self.verdict(tokens[:, :several, 0]).squeeze(-1), readings, guesses)

    def compared(self, pictures: Tensor, before: Tensor, words: Tensor) -> Tensor:
        """Pictures [B, K, cells, width] after a look at source cells [B, cells, width] and words [B, L].

        Returns:
            [B, K, 1 + cells, width]; the verdict's token comes first.
        """
        several = pictures.shape[1]
        text, mask = self.word(words), words != PADDING
        text = text + self.phrase(text.transpose(1, 2)).transpose(1, 2) + self.word_place[: words.shape[1]]
        for layer in self.text:
            text = layer(text, mask)
        seen = self.compare(torch.cat([pictures, before[:, None].expand_as(pictures)], dim=-1)) + self.cell_place
        tokens = torch.cat([self.asked.expand(*seen.shape[:2], 1, -1), seen], dim=2).flatten(0, 1)
        text, mask = text.repeat_interleave(several, dim=0), mask.repeat_interleave(several, dim=0)
        for layer in self.judge:
            tokens = layer(tokens, None, (text, mask))
        return tokens.view(-1, several, *tokens.shape[1:])

    def save(self, folder: str | Path) -> None:
        """Write config.json (shape, world, words) and model.safetensors, atomically."""
        saved = SavedReward(network=self.config, world=self.world, words=self.vocabulary.words)
        with publish_folder(folder) as place:
            save_file({name: value.contiguous() for name, value in self.state_dict().items()}, place / WEIGHTS)
            write_json(place / CONFIG, saved.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: str | Path) -> SceneReward:
        """The network that `save` wrote, frozen and in evaluation mode, on the CPU.

        Raises:
            ConfigError: the folder holds no reward, or one of another shape.
        """
        path = Path(folder) / CONFIG
        if not path.is_file():
            raise ConfigError(f"{folder}: no {CONFIG} here; give the `reward` folder of a finished reward stage")
        saved = build(SavedReward, json.loads(path.read_text()), str(path))
        model = cls(saved.network, saved.world, Vocabulary(saved.words))
        model.load_state_dict(load_file(path.with_name(WEIGHTS)))
        return model.requires_grad_(False).eval()


class Trunk(nn.Module):
    """Pictures [N, 3, H, W] in [0, 1] to one token a cell [N, grid * grid, width]."""

    def __init__(self, config: SceneRewardConfig, grid: int) -> None:
        super().__init__()
        first, *others = channels = config.trunk_channels
        blocks: list[nn.Module] = [nn.Conv2d(3, first, config.patch + 2, config.patch, 1)]
        for before, after in zip(channels, others, strict=False):
            blocks += [nn.GroupNorm(8, before), nn.SiLU(), nn.Conv2d(before, after, 3, 2, 1)]
        blocks += [nn.GroupNorm(8, channels[-1]), nn.SiLU()]
        self.blocks = nn.Sequential(*blocks)
        self.grid = grid
        self.join = nn.Conv2d(channels[-1], config.width, 2, 2)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks(2 * images - 1)
        features = self.join(functional.adaptive_avg_pool2d(features, 2 * self.grid))
        tokens: Tensor = self.norm(features.flatten(2).transpose(1, 2))
        return tokens


class Layer(nn.Module):
    """Pre-norm transformer layer: self-attention, attention to the words where `crossed`, feed-forward."""

    def __init__(self, width: int, num_heads: int, crossed: bool) -> None:
        super().__init__()
        self.own = Attention(width, num_heads)
        self.cross = Attention(width, num_heads) if crossed else None
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor, visible: Tensor | None, words: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """x [B, N, width], of which `visible` [B, N] may be looked at; words [B, L, width] with their mask [B, L]."""
        x = x + self.own(x, None, visible)
        if self.cross is not None and words is not None:
            x = x + self.cross(x, *words)
        fed: Tensor = x + self.feed(x)
        return fed


class Attention(nn.Module):
    """x [B, N, width], normalised, looks at y [B, M, width] (itself when None) where `visible` [B, M]."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, y: Tensor | None, visible: Tensor | None) -> Tensor:
        x = self.norm(x)
        key, value = self.key_value(x if y is None else y).chunk(2, dim=-1)
        query, key, value = (self._split(part) for part in (self.query(x), key, value))
        mask = None if visible is None else visible[:, None, None, :]
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result

    def _split(self, x: Tensor) -> Tensor:
        """[B, N, width] -> [B, heads, N, width / heads]."""
        return x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)
