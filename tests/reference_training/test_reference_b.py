"""Model B's training forward computes what the native LLaVA computes, and takes over what model A has learned."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from harness.reference_training.architecture import new_model
from harness.reference_training.architecture_b import EMBEDDING_RMS, new_model_b, raster_of_merge_order
from harness.reference_training.asking import Asked
from harness.reference_training.batches import LENGTH, Encoder, patches_of
from harness.reference_training.export import export
from harness.reference_training.kinds import KINDS
from harness.reference_training.packed import GAZE_LAYERS, WORDS

ASKED = (
    Asked("read", "number on the red sign?", "47", ()),
    Asked("where", "where is the sun?", "top left", ()),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model-b")
    export(new_model_b(seed=3).state_dict(), path, "b")
    return path


@pytest.fixture(scope="module")
def model(folder):
    return LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)


@torch.inference_mode()
def test_packed_questions_get_the_logits_of_the_native_model(folder, model, pixels):
    processor = LlavaProcessor.from_pretrained(folder, backend="pil")
    encode = Encoder(processor.tokenizer)
    blocks = torch.tensor([[encode.block(asked)[0] for asked in ASKED]])
    packed, tables = KINDS["b"].packed(model), KINDS["b"].layout(model, 256, len(ASKED), LENGTH)
    _, units, tokens = packed.see(torch.from_numpy(patches_of(pixels))[None], tables)
    logits = packed.answer(units, tokens, blocks, tables).view(len(ASKED), LENGTH, -1)
    for ours, asked in zip(logits, ASKED, strict=True):
        content = [{"type": "image"}, {"type": "text", "text": asked.question}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        prompt = processor(images=[Image.fromarray(pixels)], text=[text + asked.answer], return_tensors="pt")
        native = model(**prompt).logits[0, 16 * 16 + 2 :]
        assert native.std() > 0.5  # flat logits would agree with anything
        assert (ours[: len(native)] - native).abs().max() < 1e-4


@torch.inference_mode()
def test_the_gaze_on_a_unit_is_the_gaze_on_its_four_tokens(model, pixels):
    packed, tables = KINDS["b"].packed(model), KINDS["b"].layout(model, 256, 1, LENGTH)
    _, units, tokens = packed.see(torch.from_numpy(patches_of(pixels))[None], tables)
    watched = {}
    packed.answer(units, tokens, torch.ones(1, 1, LENGTH, dtype=torch.int64), tables, watched)
    assert set(watched) == {*GAZE_LAYERS, WORDS}
    assert watched[GAZE_LAYERS[0]].shape == (1, 2, LENGTH, 64)
    assert watched[GAZE_LAYERS[0]].exp().sum(-1) == pytest.approx(1.0, abs=1e-5)


def test_smaller_images_run_on_interpolated_positions(model, pixels):
    packed, tables = KINDS["b"].packed(model), KINDS["b"].layout(model, 128, 1, LENGTH)
    states, units, tokens = packed.see(torch.from_numpy(patches_of(pixels[:128, :128]))[None], tables)
    assert (states.shape[1], units.shape[1], tokens.shape[1]) == (64, 16, 64)


def test_places_in_merge_order_are_found_again_in_raster_order():
    assert raster_of_merge_order(4).tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]


def test_model_b_starts_from_what_model_a_knows():
    start = new_model(seed=5)
    b = new_model_b(seed=0, start=start)
    visual, language = start.model.visual, start.model.language_model
    tower = b.model.vision_tower
    assert torch.equal(tower.encoder.layers[3].mlp.fc1.weight, visual.blocks[3].mlp.linear_fc1.weight)
    assert torch.equal(tower.encoder.layers[6].self_attn.v_proj.weight, visual.blocks[6].attn.qkv.weight[320:])
    assert torch.equal(
        b.model.language_model.layers[9].self_attn.o_proj.weight, language.layers[9].self_attn.o_proj.weight
    )
    assert torch.equal(b.get_input_embeddings().weight, language.embed_tokens.weight)
    assert (tower.pre_layrnorm.weight == EMBEDDING_RMS).all()
    with pytest.raises(ValueError, match="starts from nothing"):
        KINDS["a"].new(0, "anywhere")


def test_queries_get_the_size_that_model_a_norms_them_to():
    start = new_model(seed=5)
    b = new_model_b(seed=0, start=start)
    states = torch.randn(4096, 128)
    attention = start.model.language_model.layers[2].self_attn
    theirs = attention.q_norm(attention.q_proj(states).view(4096, -1, 32))
    ours = b.model.language_model.layers[2].self_attn.q_proj(states).view(4096, -1, 32)
    assert ours.pow(2).mean().sqrt().item() == pytest.approx(theirs.pow(2).mean().sqrt().item(), rel=0.1)
