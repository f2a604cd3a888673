"""The shipped models load as any hub folder does, fit their budgets, and see."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.models.processors import load_processor
from harness.reference.paths import MODEL_A, MODELS, SUITE
from harness.reference.suite import load_questions
from harness.reference_training.evaluate import right_answers, table
from harness.reference_training.kinds import kind_of
from harness.reference_training.words import FAMILIES

shipped = pytest.mark.parametrize("folder", MODELS.values(), ids=MODELS)


def test_both_models_are_shipped():
    assert set(MODELS) == {"a", "b"}


@shipped
def test_the_weights_stay_within_their_budget(folder: Path):
    assert (folder / "model.safetensors").stat().st_size <= kind_of(folder).most_bytes


def test_the_models_fit_into_26_megabytes_together():
    assert sum(file.stat().st_size for folder in MODELS.values() for file in folder.iterdir()) <= 26_000_000


def test_another_model_is_not_a_reference_model(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="holds a llama"):
        kind_of(tmp_path)


@shipped
@torch.inference_mode()
def test_native_generation_gives_the_answers_that_the_packed_forward_counts(folder: Path):
    model = kind_of(folder).native.from_pretrained(folder, dtype=torch.float32).eval()
    processor = load_processor(folder)
    questions = load_questions()
    chosen = [next(q for q in questions if q.family == family) for family in FAMILIES]
    packed = right_answers(folder, SUITE, chosen)
    for question, right in zip(chosen, packed, strict=True):
        content = [{"type": "image"}, {"type": "text", "text": question.question}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(images=[Image.open(SUITE / question.image)], text=[text], return_tensors="pt")
        tokens = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
        said = processor.tokenizer.decode(tokens, skip_special_tokens=True)
        assert (said == question.answer) == right, question.question


@shipped
def test_every_family_is_answered_far_above_its_majority(folder: Path):
    questions = load_questions()
    images = sorted({q.image for q in questions if q.family == "read"})[:6]
    images += sorted({q.image for q in questions if q.family != "read"})[:24]
    asked = [q for q in questions if q.image in set(images)]
    right = right_answers(folder, SUITE, asked)
    for family in FAMILIES:
        hits = [bool(hit) for hit, q in zip(right, asked, strict=True) if q.family == family]
        assert len(hits) >= 15, family
        base = Counter(q.answer for q in questions if q.family == family).most_common(1)[0][1]
        share = base / sum(q.family == family for q in questions)
        assert sum(hits) / len(hits) >= share + 0.2, family


def test_the_intervals_of_the_table_are_clustered_by_image_and_never_certain():
    """100 questions all right, two on each image: 0.025 ** (1 / 50) = 0.929."""
    question = load_questions()[0]
    asked = [replace(question, image=f"{number // 2}") for number in range(100)]
    lines = list(table(asked, np.ones(100, dtype=bool)))
    assert "0.929 - 1.000" in lines[1] and lines[1].startswith(question.family)
    assert "0.929 - 1.000" in lines[2] and lines[2].startswith("all")


def test_another_answer_than_the_right_one_does_not_count():
    asked = next(q for q in load_questions() if q.family == "color" and q.answer == "green")
    wrong = type(asked)(**{**vars(asked), "answer": "red"})
    assert right_answers(MODEL_A, SUITE, [asked, wrong]).tolist() == [True, False]


def test_an_answer_too_long_for_the_block_is_refused():
    question = load_questions()[0]
    long = type(question)(**{**vars(question), "answer": "one two three four"})
    with pytest.raises(ValueError, match="LENGTH"):
        right_answers(MODEL_A, SUITE, [long])
