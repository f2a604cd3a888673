"""Models on disk, opened by their folder: processors, questions, commands and `prune` blocks on every family."""

import json
import shutil

import checkpoints
import pytest
import torch
from PIL import Image

import harness
import methods
from harness.cli import main
from harness.models.loading import open_model
from harness.reference_training.architecture_b import new_model_b
from harness.reference_training.export import export
from methods.base import Budget

QUESTION = "which colour has the car?"


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy())


def reference_b(folder):
    export(new_model_b(seed=0).state_dict(), folder, "b")
    return folder


MAKERS = {
    "internvl": checkpoints.internvl,
    "llava": checkpoints.llava,
    "llava_next": checkpoints.llava_next,
    "qwen2_5_vl": checkpoints.qwen2_5_vl,
    "reference-b": reference_b,
}
REORDERING = ("internvl",)  # its tower orders tokens anew


@pytest.fixture(scope="module", params=list(MAKERS))
def folder(request, tmp_path_factory):
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param) / "model")


@pytest.fixture(scope="module")
def opened(folder):
    return open_model(folder)


@pytest.mark.parametrize("sizes", [[(64, 48)], [(30, 90), (64, 64)]])
def test_keeping_everything_is_the_native_model(opened, sizes):
    processed = opened.processed([picture(*size) for size in sizes], QUESTION)
    engine, inputs = opened.engine(None), opened.family.inputs(processed)
    ours = engine.prefill(inputs, engine.plan(Budget("layer_average", 1), inputs.shape), logits_to_keep=0)
    with torch.no_grad():
        native = opened.model(**processed).logits
    tolerance = 5e-5 if opened.family.model_type in REORDERING else 0
    assert (ours.logits - native).abs().max() <= tolerance and native.std() > 0.01


def test_a_batch_of_the_processors_own_answers_as_its_prompts_do_alone(opened):
    """Other pictures, other numbers of them and other questions, padded by the real processor."""
    asked = [([(64, 48)], QUESTION), ([(30, 90), (64, 64)], "yes or no?"), ([(48, 96)], "describe the image.")]
    rows = [([picture(*size, seed) for seed, size in enumerate(sizes)], question) for sizes, question in asked]
    batch = together(opened.processor, rows)
    assert not batch["attention_mask"].all()
    with harness.prune(opened.model, "fastv", budget=0.6, processor=opened.processor):
        alone = [answered(opened, opened.processed(*row)) for row in rows]
        assert answered(opened, batch) == [own for one in alone for own in one]


def together(processor, rows):
    """Several questions with their images as one left-padded batch."""
    turns = [
        [{"role": "user", "content": [{"type": "image"} for _ in images] + [{"type": "text", "text": question}]}]
        for images, question in rows
    ]
    text = [processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns]
    processor.tokenizer.padding_side = "left"
    return processor(images=[images for images, _ in rows], text=text, padding=True, return_tensors="pt")


def answered(opened, processed):
    length = processed["input_ids"].shape[1]
    out = opened.model.generate(**processed, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    return out[:, length:].tolist()


def test_the_question_is_the_users_text_alone(opened):
    inputs = opened.prepare([picture(64, 48)], QUESTION)
    assert opened.decode(inputs.question_ids) == QUESTION
    answered, answer = opened.prepare_answered([picture(64, 48)], QUESTION, "red")
    assert opened.decode(answered.question_ids) == QUESTION and "red" in opened.decode(answer)


def test_a_run_from_the_command_line(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "sys.argv",
        ["harness", "run", "--method", "fastv", "--model", str(folder), "--limit", "4", "--no-timing",
         "--store", str(tmp_path / "store.duckdb"), "--json"],
    )  # fmt: skip
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code in (0, None)
    run = json.loads(capsys.readouterr().out)
    assert run["status"] == "ok" and run["accuracy"]["n"] == 4


@pytest.mark.parametrize("preset", ["init", "random-init"])
def test_an_adapter_is_trained_from_the_command_line_and_used(folder, tmp_path, capsys, monkeypatch, preset):
    model = shutil.copytree(folder, tmp_path / "model")
    picture(64, 48).save(tmp_path / "a.png")
    lines = [
        {"image": "a.png", "question": QUESTION, "answer": "red"},
        {"image": "a.png", "question": "?", "answer": "a"},
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    monkeypatch.setattr(
        "sys.argv",
        ["harness", "train-adapter", "--method", f"quietprune:{preset}", "--model", str(model),
         "--data", str(tmp_path / "data.jsonl"), "--steps", "2", "--batch", "2", "--learning-rate", "0.01"],
    )  # fmt: skip
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr().err
    assert left.value.code in (0, None)
    assert ("condition numbers" in said) == (preset == "init") and "gradient 0.000" not in said
    opened = open_model(model)
    begun = opened.engine(methods.build(f"quietprune:{preset}")).prepared.state_dict()
    trained = opened.engine(methods.build("quietprune")).prepared.state_dict()
    moved = {name: (trained[name] - begun[name]).abs().max().item() for name in begun}
    assert set(trained) == set(begun) and min(moved.values()) > 1e-4  # every tensor has learnt


@pytest.mark.parametrize("method", ["divprune", "fastv", "visionzip", "quietprune:init", "vprune"])
def test_a_prune_block_answers_and_leaves_the_model_alone(opened, method):
    processed = opened.processed([picture(64, 48)], QUESTION)
    asked = {"max_new_tokens": 4, "do_sample": False}
    before = opened.model.generate(**processed, **asked)
    with harness.prune(opened.model, method, budget=0.5, processor=opened.processor) as pruning:
        pruned = opened.model.generate(**processed, **asked)
    n = opened.family.inputs(processed).shape.n
    entering = pruning.realised.entering
    assert abs(sum(entering) / len(entering) - n / 2) <= 1
    assert torch.equal(pruned[:, : processed["input_ids"].shape[1]], processed["input_ids"])
    assert torch.equal(opened.model.generate(**processed, **asked), before)
