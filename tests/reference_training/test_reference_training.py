"""The reference model's training computes what the native model computes, learns, and goes on after a stop."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from harness.models.processors import load_processor
from harness.reference_training import materials
from harness.reference_training.architecture import new_model
from harness.reference_training.asking import Asked
from harness.reference_training.batches import (
    END,
    IGNORED,
    LENGTH,
    NO_SHAPE,
    QUESTIONS,
    Encoder,
    TrainingBatch,
    patches_of,
    shape_word,
)
from harness.reference_training.course import Course, Moment
from harness.reference_training.export import export
from harness.reference_training.labels import (
    CARD,
    NO_COLOUR,
    NO_DIGIT,
    NOTHING,
    SIGN,
    merge_order,
    patch_labels,
    unit_labels,
)
from harness.reference_training.losses import AuxiliaryHeads, exact_matches, gaze_loss
from harness.reference_training.optimizer import is_hidden_matrix, orthogonalize
from harness.reference_training.packed import GAZE_HEADS, GAZE_LAYERS, WORDS, PackedModel, layout
from harness.reference_training.scenes import Scene, Thing
from harness.reference_training.training_log import read_log
from harness.reference_training.words import FAMILIES, SHAPE_NAMES

ASKED = (
    Asked("read", "number on the red sign?", "47", ()),
    Asked("where", "where is the sun?", "top left", ()),
    Asked("exist", "is there a red sun?", "yes", ()),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    export(new_model(seed=3).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def model(folder):
    from transformers import Qwen3VLForConditionalGeneration

    return Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def processor(folder):
    return load_processor(folder)


def prompt(processor, image, asked):
    content = [{"type": "image"}, {"type": "text", "text": asked.question}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return processor(images=[image], text=[text + asked.answer], return_tensors="pt")


@pytest.mark.parametrize("side", [256, 128])
@torch.inference_mode()
def test_packed_questions_get_the_logits_of_the_native_model(model, processor, side):
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    encode = Encoder(processor.tokenizer)
    blocks = torch.tensor([[encode.block(asked)[0] for asked in ASKED]])
    packed, tables = PackedModel(model), layout(model, side, len(ASKED), LENGTH)
    _, tokens, deep = packed.see(torch.from_numpy(patches_of(pixels))[None], tables)
    logits = packed.answer(tokens, deep, blocks, tables).view(len(ASKED), LENGTH, -1)
    prefix = (side // 32) ** 2 + 2
    for ours, asked in zip(logits, ASKED, strict=True):
        native = model(**prompt(processor, Image.fromarray(pixels), asked)).logits[0, prefix:]
        assert native.std() > 0.5  # flat logits would agree with anything
        assert (native - ours[: len(native)]).abs().max() < 5e-5


@torch.inference_mode()
def test_the_watched_attention_is_the_native_one_over_image_tokens(folder, processor):
    from transformers import Qwen3VLForConditionalGeneration

    eager = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    pixels = np.random.default_rng(4).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    block = torch.tensor([[Encoder(processor.tokenizer).block(ASKED[0])[0]]])
    packed, tables, watched = PackedModel(eager), layout(eager, 64, 1, LENGTH), {}
    _, tokens, deep = packed.see(torch.from_numpy(patches_of(pixels))[None], tables)
    packed.answer(tokens, deep, block, tables, watched)
    native = eager(**prompt(processor, Image.fromarray(pixels), ASKED[0]), output_attentions=True).attentions
    assert sorted(watched) == [WORDS, *GAZE_LAYERS]
    for index in GAZE_LAYERS:
        gaze = watched[index]
        over_image = native[index][:, :GAZE_HEADS, 6:, 1:5]
        wanted = over_image / over_image.sum(-1, keepdim=True)
        assert (gaze.exp()[:, :, : wanted.shape[2]] - wanted).abs().max() < 1e-5


def test_gaze_is_pulled_only_where_an_answer_is_predicted_and_onto_its_target():
    targets = torch.full((1, 1, 4), IGNORED)
    targets[0, 0, 2:] = torch.tensor([9, END])
    aims = torch.tensor([[[True, True, False, False]]])
    batch = TrainingBatch(torch.zeros(0), torch.zeros(0), targets, torch.zeros(1, 1), aims, torch.zeros(0), {}, {})
    gaze = torch.full((1, 2, 4, 4), 0.25).log().requires_grad_()
    loss = gaze_loss({5: gaze}, batch)
    assert loss.item() == pytest.approx(math.log(2))  # half of an even attention lies on the target
    loss.backward()
    assert gaze.grad[0, :, 2, :2].abs().min() > 0
    assert gaze.grad[0, :, [0, 1, 3]].abs().max() == 0 and gaze.grad[0, :, 2, 2:].abs().max() == 0


def test_the_word_head_reads_the_place_where_the_answer_starts():
    targets = torch.full((1, 1, 4), IGNORED)
    targets[0, 0, 2:] = torch.tensor([9, END])
    batch = TrainingBatch(
        torch.zeros(0), torch.zeros(0), targets, torch.zeros(1, 1), torch.zeros(0), torch.tensor([[3]]), {}, {}
    )
    states = torch.randn(1, 4, 128, generator=torch.Generator().manual_seed(0)).requires_grad_()
    AuxiliaryHeads().word_loss(states, batch).backward()
    assert states.grad[0, 2].abs().sum() > 0
    assert states.grad[0, [0, 1, 3]].abs().max() == 0


def test_the_shape_of_a_question_is_its_last_word_in_either_number():
    assert shape_word("how many crosses?") == shape_word("is there a red cross?") == SHAPE_NAMES.index("cross")
    assert shape_word("number on the red sign?") == NO_SHAPE


def test_a_resumed_log_leaves_out_the_branch_that_was_given_up(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps({"elapsed_s": second, "branch": b}) + "\n" for second, b in LINES))
    assert [(line["elapsed_s"], line["branch"]) for line in read_log(log)] == [(30, 1), (60, 1), (80, 2), (110, 2)]


LINES = ((30, 1), (60, 1), (90, 1), (120, 1), (80, 2), (110, 2))


@torch.inference_mode()
def test_a_packed_question_sees_no_other_question(model, processor):
    encode, packed = Encoder(processor.tokenizer), PackedModel(model)
    tables = layout(model, 64, 2, LENGTH)
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    _, tokens, deep = packed.see(torch.from_numpy(patches_of(pixels))[None], tables)
    first, second, third = (encode.block(asked)[0] for asked in ASKED)
    beside_second = packed.answer(tokens, deep, torch.tensor([[first, second]]), tables)[0, :LENGTH]
    beside_third = packed.answer(tokens, deep, torch.tensor([[first, third]]), tables)[0, :LENGTH]
    swapped = packed.answer(tokens, deep, torch.tensor([[third, first]]), tables)[0, LENGTH:]
    assert torch.equal(beside_second, beside_third)
    assert torch.allclose(beside_second, swapped, atol=1e-5)


def test_patches_are_laid_out_as_the_image_processor_does(processor):
    pixels = np.random.default_rng(2).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    native = processor.image_processor(images=[Image.fromarray(pixels)], return_tensors="pt")["pixel_values"]
    frames = native.view(-1, 3, 2, 256)  # (N, channel, frame, patch)
    assert torch.equal(frames[:, :, 0], frames[:, :, 1])
    assert torch.allclose(frames[:, :, 0].reshape(-1, 768), torch.from_numpy(patches_of(pixels)), atol=1e-6)


@torch.inference_mode()
def test_odd_shapes_several_images_and_any_text_run(model, processor):
    images = [Image.new("RGB", (160, 96), "red"), Image.new("RGB", (256, 256), "blue")]
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Qué ça? 🎉 <zz> 47%\n"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=images, text=[text], return_tensors="pt")
    assert inputs["image_grid_thw"].prod(1).tolist() == [10 * 6, 256]
    generated = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert generated.shape[1] > inputs["input_ids"].shape[1]
    assert "Qué ça? 🎉 <zz> 47%\n" in processor.tokenizer.decode(generated[0])


def test_digits_are_tokens_of_their_own(processor):
    ids = processor.tokenizer("number 4705")["input_ids"]
    assert [processor.tokenizer.decode([i]) for i in ids[-4:]] == ["4", "7", "0", "5"]
    pieces = processor.tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("4705")
    assert [piece for piece, _ in pieces] == ["4", "7", "0", "5"]  # whatever merges the vocabulary may learn


def test_only_answers_are_learned_and_every_token_of_them(processor):
    encode = Encoder(processor.tokenizer)
    inputs, targets = encode.block(ASKED[0])
    learned = [(i, t) for i, t in zip(inputs, targets, strict=True) if t != IGNORED]
    start, end = (processor.tokenizer.convert_tokens_to_ids(mark) for mark in ("<|im_start|>", "<|im_end|>"))
    four, seven = processor.tokenizer("47")["input_ids"]
    assert learned == [(start, four), (four, seven), (seven, end)]


def test_a_question_too_long_for_its_block_is_refused(processor):
    with pytest.raises(ValueError, match="LENGTH"):
        Encoder(processor.tokenizer).block(Asked("read", "number on the red sign in the picture?", "47", ()))


def test_an_answer_counts_only_when_all_its_tokens_are_right():
    targets = torch.full((1, 2, 3), IGNORED)
    targets[0, 0, 1:], targets[0, 1, 1:] = torch.tensor([1, 2]), torch.tensor([1, 2])
    logits = torch.zeros(1, 6, 4)
    for place, token in ((1, 1), (2, 2), (4, 1), (5, 3)):  # the second answer ends wrongly
        logits[0, place, token] = 1.0
    batch = TrainingBatch(
        torch.zeros(0), torch.zeros(0), targets, torch.tensor([[0, 0]]), torch.zeros(0), torch.zeros(0), {}, {}
    )
    assert exact_matches(logits, batch)[0].tolist() == [1.0, 2.0]


def test_merge_order_puts_the_four_patches_of_a_unit_side_by_side():
    grid = np.arange(36).reshape(6, 6)
    assert merge_order(grid)[:12].tolist() == [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]
    assert merge_order(grid)[12:16].tolist() == [12, 13, 18, 19]


def test_labels_name_what_lies_under_patches_and_units():
    sign = Thing("sign", 2, -1, 47, (0, 0, 32, 32), ((6, 6, 16, 26), (16, 6, 26, 26)))
    card = Thing("card", 0, -1, 9, (32, 32, 64, 64), ((35, 35, 61, 61),))
    scene = Scene(np.zeros((64, 64, 3), dtype=np.uint8), (sign, card), crowded=False)
    unit, patch = unit_labels(scene), patch_labels(scene)
    assert unit["kind"].tolist() == [SIGN, NOTHING, NOTHING, CARD]
    assert unit["colour"].tolist() == [2, NO_COLOUR, NO_COLOUR, NO_COLOUR]
    assert unit["tens"].tolist() == [4, NO_DIGIT, NO_DIGIT, NO_DIGIT]
    assert unit["ones"].tolist() == [7, NO_DIGIT, NO_DIGIT, NO_DIGIT]
    assert unit["hand"].tolist() == [NO_DIGIT, NO_DIGIT, NO_DIGIT, 9]
    assert patch["glyph"].tolist() == [4, 7, 4, 7] + [NO_DIGIT] * 12


def test_the_course_ends_with_its_rate_at_zero_and_never_rises_after_the_start():
    course = Course(seconds=6000.0, seeing_seconds=600.0)
    spoken = [course.at(600.0 + 60.0 + second).rate for second in range(0, 5340, 60)]
    assert not course.at(599.0).speaking and course.at(601.0).speaking
    assert spoken == sorted(spoken, reverse=True)
    assert course.at(5999.9).rate < 1e-6
    assert course.at(5999.9).side == 256
    with pytest.raises(ValueError, match="6000"):
        course.at(6000.0)


def test_orthogonalized_matrices_have_singular_values_near_one():
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(32, 8, generator=generator)).Q
    wide = (left * torch.linspace(0.1, 3.0, 8) @ right.T)[None]  # (1, 8, 32), singular values 0.1 to 3
    for matrices in (wide, wide.transpose(1, 2).contiguous()):
        values = torch.linalg.svdvals(orthogonalize(matrices))
        assert values.min() > 0.6 and values.max() < 1.3


def test_muon_moves_hidden_matrices_only():
    names = {name for name, parameter in new_model(0).named_parameters() if is_hidden_matrix(name, parameter)}
    assert "model.language_model.layers.15.mlp.down_proj.weight" in names
    assert "model.visual.blocks.0.attn.qkv.weight" in names
    assert not {name for name in names if "embed" in name or "norm" in name or "bias" in name}
    assert len(names) == 16 * 7 + 8 * 4 + 2 * 2


class Steady:
    """A course that stands still, with small batches."""

    seconds = math.inf

    def at(self, elapsed):
        return Moment(speaking=True, side=64, images=2, crowded_share=0.5, rate=1.0, auxiliary_weight=0.4)


def test_resumed_training_continues_as_if_it_had_never_stopped(tmp_path):
    missing = materials.missing_materials()
    if missing:
        pytest.skip(f"the generator's materials are not installed: {missing[0]}")
    from harness.reference_training.train import Settings, Trainer, save

    settings = Settings(out=tmp_path, minutes=1.0, workers=1, variants=2)
    straight, resumed = Trainer(settings, rank=0), Trainer(settings, rank=0)
    straight.course = resumed.course = Steady()
    first = straight.step()
    straight.step()
    save(straight, tmp_path / "checkpoint.pt")
    third = straight.step()
    resumed.load(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    again = resumed.step()
    assert again["answer"] == third["answer"] != first["answer"]
    for ours, theirs in zip(straight.parameters, resumed.parameters, strict=True):
        assert torch.equal(ours, theirs)
    assert resumed.step_index == 3 and resumed.elapsed > 0
    assert third["counts"].shape == (len(FAMILIES), 2) and third["counts"][:, 1].sum() <= 2 * QUESTIONS
