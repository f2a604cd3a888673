"""A CLIP model beside the pruned one: its embeddings as signals, from a folder written here."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from harness.flops.prefill import dims_of, planned_realised
from harness.models.clip import open_clip
from harness.models.engine import Engine
from harness.records.errors import CorruptCheckpoint
from methods.base import Budget, MissingSignal
from methods.cdpruner import CDPruner

WORDS = ["<start>", "<end>", "<unknown>", *(f"w{number}" for number in range(20))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """Four by four patches of 8 pixels, texts of at most 8 tokens."""
    where = tmp_path_factory.mktemp("clip")
    config = CLIPConfig(
        text_config={
            "vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1,
        },
        vision_config={
            "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 8,
        },
        projection_dim=12,
    )  # fmt: skip
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(where)
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unknown>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<start>", eos_token="<end>", unk_token="<unknown>"
    )
    fast.save_pretrained(where)
    return str(where)


def read(ids: torch.Tensor) -> str:
    return " ".join(f"w{number % 20}" for number in ids.tolist())


@pytest.fixture
def clip(folder):
    return open_clip(folder, torch.device("cpu"), read)


def units_of(picture: torch.Tensor, side: int) -> torch.Tensor:
    """(3, h, w) as (n, 3, side, side)."""
    rows, columns = picture.shape[1] // side, picture.shape[2] // side
    return picture.view(3, rows, side, columns, side).permute(1, 3, 0, 2, 4).reshape(rows * columns, 3, side, side)


def ignore(flops: int) -> None:
    pass


@torch.no_grad()
def test_patches_of_clips_own_grid_are_its_embeddings_before_the_last_layer(clip):
    picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    ours, vision = clip.patches(units_of(picture, 8), (4, 4), ignore), clip.model.vision_model
    mean, std = (torch.tensor(values)[:, None, None] for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    states = vision.pre_layrnorm(vision.embeddings(((picture - mean) / std)[None]))
    for layer in vision.encoder.layers[:2]:
        states = layer(states, attention_mask=None)
    theirs = clip.model.visual_projection(vision.post_layernorm(states))[0, 1:]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_other_grids_get_the_embeddings_of_where_they_are(clip):
    picture = torch.zeros(3, 48, 64)
    picture[:, :, 32:] = 1.0
    ours = clip.patches(units_of(picture, 16), (3, 4), ignore)
    square = nn.functional.interpolate(picture[None], (32, 32), mode="bicubic", antialias=True)[0].clamp(0, 1)
    fine = clip.patches(units_of(square, 8), (4, 4), ignore)
    expected = nn.functional.interpolate(fine.T.view(1, 12, 4, 4), (3, 4), mode="bilinear", antialias=True)
    torch.testing.assert_close(ours, expected[0].flatten(1).T, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_long_question_is_cut_where_clips_text_ends(clip):
    one, two = clip.segments(torch.arange(6), ignore), clip.segments(torch.arange(8), ignore)
    assert one.shape == (1, 12) and two.shape == (2, 12)
    torch.testing.assert_close(two, torch.cat([one, clip.segments(torch.tensor([6, 7]), ignore)]))
    assert clip.segments(torch.arange(0), ignore).shape == (1, 12)


@torch.no_grad()
def test_its_work_is_counted_as_torch_counts_it(clip):
    spent: list[int] = []
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        clip.patches(torch.rand(6, 3, 16, 16), (2, 3), spent.append)
        clip.segments(torch.arange(9), spent.append)
    assert sum(spent) == counter.get_total_flops() > 0


def test_a_folder_without_a_clip_model_says_what_is_wanted(tmp_path):
    with pytest.raises(CorruptCheckpoint, match="clip_folder"):
        open_clip(str(tmp_path), torch.device("cpu"), read)


def test_cdpruner_asks_it_and_without_it_says_what_to_do(folder, reference_a):
    pruner, picture = CDPruner("clip", folder), Image.effect_noise((128, 96), 90).convert("RGB")
    assert reference_a.adapter_revision(pruner) and reference_a.adapter_revision(CDPruner()) == ""
    engine, inputs = reference_a.engine(pruner), reference_a.prepare([picture], "number on the red sign?")
    plan = engine.plan(Budget("layer_average", 4), inputs.shape)
    first, again = (engine.prefill(inputs, plan).realised for _ in range(2))
    assert first == again and first.entering == plan.entering
    plain = reference_a.engine(CDPruner())
    assert plain.prefill(inputs, plan).realised.selection_flops < first.selection_flops
    with pytest.raises(MissingSignal, match="CLIP"):
        planned_realised(dims_of(reference_a.model.config), inputs.shape, plan, inputs.text, pruner)
    with pytest.raises(MissingSignal, match="clip_folder"):
        Engine(reference_a.family, pruner).prefill(inputs, plan)
    with pytest.raises(MissingSignal, match="clip_folder"):
        reference_a.engine(CDPruner("clip"))
