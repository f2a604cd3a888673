"""Short names of published models: their sizes, how they are opened, and what is built without their weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import commands_in
from PIL import Image
from tiny_catalogue import tiny_entry

from harness.models import catalogue
from harness.models.loading import open_model
from harness.models.processors import TEXT, processor_of
from harness.models.random_weights import build, on_meta, open_random
from harness.models.registry import parted, resolve
from harness.records.errors import ModelUnavailable, UnknownModel
from methods.base import Plan

PUBLISHED = {  # billions of parameters, as the model cards or the tensors on the hub say
    "internvl3-1b": 0.938, "internvl3-2b": 2.09, "internvl3-8b": 7.94, "llava-1.5-7b": 7.06, "llava-1.5-13b": 13.35,
    "llava-next-7b": 7.06, "qwen2.5-vl-3b": 3.75, "qwen2.5-vl-7b": 8.29, "qwen3-vl-2b": 2.13, "qwen3-vl-4b": 4.44,
    "qwen3-vl-8b": 8.77,
}  # fmt: skip


def test_every_published_size_is_there():
    assert set(catalogue.names()) == set(PUBLISHED)
    assert {name: catalogue.named(name).parameters / 1e9 for name in PUBLISHED} == pytest.approx(PUBLISHED, abs=6e-3)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_config_makes_as_many_parameters_as_published(name: str):
    entry = catalogue.named(name)
    model = on_meta(entry)
    assert sum(parameter.numel() for parameter in model.parameters()) == entry.parameters


def test_a_short_name_means_a_hub_id_and_a_revision_stays_on_it():
    assert resolve("qwen3-vl-2b") == "Qwen/Qwen3-VL-2B-Instruct"
    assert parted(resolve("qwen3-vl-2b")) == ("Qwen/Qwen3-VL-2B-Instruct", "main")
    assert parted(resolve("qwen3-vl-2b@89644e7")) == ("Qwen/Qwen3-VL-2B-Instruct", "89644e7")
    assert parted(resolve("owner/name@v1")) == ("owner/name", "v1")
    with pytest.raises(UnknownModel, match="qwen3-vl-2b"):
        resolve("qwen3-vl-2")


def test_a_model_that_is_not_cached_says_how_to_fetch_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelUnavailable, match=r"`hf download OpenGVLab/InternVL3-1B-hf --revision abc`") as caught:
        open_model("internvl3-1b@abc")
    assert caught.value.exit_code == 3


def test_a_config_without_weights_in_the_cache_is_unavailable_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("harness.models.loading.model_type", lambda source, revision: "qwen3_vl")
    with pytest.raises(ModelUnavailable, match="hf download Qwen/Qwen3-VL-2B-Instruct`"):
        open_model("qwen3-vl-2b")


def test_equal_seeds_give_equal_weights_and_others_do_not():
    entry, cpu = tiny_entry(), torch.device("cpu")
    one, same, other = (build(entry, torch.float32, cpu, "sdpa", seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    matrices = [name for name in one if one[name].ndim > 1]
    assert matrices and not any(torch.equal(one[name], other[name]) for name in matrices)


def test_random_weights_leave_no_memory_as_it_was_found():
    """Every parameter is finite, matrices of full scale, norms one, biases zero."""
    model = build(tiny_entry(), torch.bfloat16, torch.device("cpu"), "sdpa")
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.bfloat16 and bool(parameter.isfinite().all()), name
        if parameter.ndim > 1:
            assert 0.015 < float(parameter.detach().float().std()) < 0.025, name
        elif name.endswith("bias"):
            assert not parameter.any(), name


def test_rotary_tables_of_random_models_are_those_of_any_other():
    model = build(tiny_entry(), torch.float32, torch.device("cpu"), "sdpa")
    frequencies = model.model.language_model.rotary_emb.inv_freq
    assert float(frequencies[0]) == 1.0 and bool((frequencies[1:] < frequencies[:-1]).all())


def test_a_random_model_says_so_and_runs_a_prompt():
    opened = open_random(tiny_entry())
    assert opened.revision.startswith("random_weights:0:")
    inputs = opened.prepare([Image.new("RGB", (64, 96), (20, 90, 200))], " ".join(TEXT.split()[:7]))
    assert inputs.shape.grids == ((3, 2),) and inputs.text.question == 7
    out = opened.engine(None).prefill(inputs, Plan({}, (6,) * inputs.shape.llm_layers))
    assert bool(out.logits.isfinite().all())


@pytest.mark.parametrize(
    ("name", "size", "tokens", "others"),
    [
        ("qwen3-vl-2b", (448, 448), 14 * 14, 10),
        ("qwen2.5-vl-3b", (448, 448), 16 * 16, 21),
        ("internvl3-1b", (448, 448), 256, 11),
        ("internvl3-1b", (896, 896), 5 * 256, 11),
        ("llava-1.5-7b", (640, 480), 576, 9),
        ("llava-next-7b", (672, 672), 576 + 48 * 49, 39),
    ],
)
def test_prompts_have_the_shapes_of_the_hub_s_processors(name, size, tokens, others):
    """Tokens of an image as the model cards tell them; the template's own tokens beside 10 of text."""
    entry = catalogue.named(name)
    processor = processor_of(entry)
    content = [{"type": "image"}, {"type": "text", "text": " ".join(TEXT.split()[:10])}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    ids = processor(images=[Image.new("RGB", size)], text=[text], return_tensors="pt")["input_ids"][0].tolist()
    image = entry.config.get("image_token_id", entry.config.get("image_token_index"))
    assert ids.count(image) == tokens
    assert len(ids) - tokens == 10 + others
    assert 0 not in ids and max(ids) < entry.config["text_config"]["vocab_size"]


def test_a_name_that_is_no_published_model_lists_the_nearest():
    with pytest.raises(UnknownModel, match=r"llava-1\.5-7b"):
        catalogue.named("llava-7b")


def test_configs_hold_what_the_hub_says_and_nothing_else():
    for path in Path(catalogue.FOLDER).glob("*.json"):
        assert set(json.loads(path.read_text())) == {"hub_id", "licence", "parameters", "config", "images"}, path.name
    assert replace(catalogue.named("llava-next-7b"), name="x").family == "llava_next"


def test_models_are_listed_with_their_size_hub_id_and_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    command = commands_in(tmp_path, monkeypatch, capsys)
    rows = {row["name"]: row for row in command("list", "models", "--json").document}
    assert rows["reference-a"]["present"] is True
    assert {**rows["llava-1.5-7b"]} == {
        "name": "llava-1.5-7b", "family": "llava", "parameters": 7063427072, "hub_id": "llava-hf/llava-1.5-7b-hf",
        "licence": "Llama 2 Community", "folder": None, "present": None,
    }  # fmt: skip
    assert "7063427072" in command("list", "models").out


def test_a_run_of_a_revision_that_is_not_cached_exits_3_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = commands_in(tmp_path, monkeypatch, capsys)(
        "run", "--method", "fastv", "--model", "qwen3-vl-2b", "--revision", "v7", "--no-timing"
    )
    assert said.code == 3 and "`hf download Qwen/Qwen3-VL-2B-Instruct --revision v7`" in said.complaint
