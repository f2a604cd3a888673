"""Gold tests of batches: prompts of other pictures and other lengths answer together as each does alone.

A prompt alone is held to the masked native model by the gold tests of its family, a batch that keeps everything to the
native model's own batch. Every prompt has other pictures; their numbers, sizes and texts differ.
"""

import gold
import pytest
import torch
from tiny import Scripted, in_llm, keep_units
from torch.nn.functional import pad
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import harness.models.batch_decoding as batch_module
from harness.models.batch_decoding import Together
from harness.models.prune import prune
from harness.validate.tiny import TINY
from methods.base import Selection

ROWS = {  # grids of the pictures of each prompt, and its words
    "qwen3_vl": (((4, 6),), ((2, 3), (5, 4)), ((1, 3),)),
    "qwen2_5_vl": (((4, 6),), ((2, 3), (5, 4)), ((1, 3),)),
    "internvl": (((6, 6),), ((6, 6),) * 3, ((6, 6),) * 2),
    "llava": (((6, 6),), ((6, 6),) * 3, ((6, 6),) * 2),
    "llava_next": (((6, 12),), ((12, 12),), ((4, 12), (12, 6))),  # the third prompt's first picture is padded
}
TEXTS = (5, 2, 9)
UNITS = {family: 3 if "qwen" in family else 36 for family in ROWS}  # of the smallest first picture of a prompt


@pytest.fixture(scope="module", params=list(ROWS))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model(family):
    return TINY[family].build(torch.float64)


@pytest.fixture(scope="module")
def prompts(family):
    made = [TINY[family].processed(grids, seed=3 + row, text=TEXTS[row]) for row, grids in enumerate(ROWS[family])]
    return [{**prompt, "pixel_values": prompt["pixel_values"].double()} for prompt in made]


def padded(prompts):
    """One batch of several prompts, as a processor pads it."""
    longest = max(prompt["input_ids"].shape[1] for prompt in prompts)
    batch = {}
    for name in prompts[0]:
        parts = [prompt[name] for prompt in prompts]
        if name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            parts = [pad(part, (longest - part.shape[1], 0)) for part in parts]
        if parts[0].ndim == 5:  # pictures of several tiles
            tiles = max(part.shape[1] for part in parts)
            parts = [pad(part, (0, 0, 0, 0, 0, 0, 0, tiles - part.shape[1])) for part in parts]
        batch[name] = torch.cat(parts)
    return batch


def answered(model, batch, **options):
    """(tokens (rows, 6), raw logits (rows, 6, V)) of greedy answers."""
    length = batch["input_ids"].shape[1]
    out = model.generate(
        **batch, max_new_tokens=6, min_new_tokens=6, do_sample=False, output_logits=True, return_dict_in_generate=True,
        **options,
    )  # fmt: skip
    assert torch.equal(out.sequences[:, :length], batch["input_ids"])
    return out.sequences[:, length:], torch.stack(out.logits, 1)


def batch_error(model, prompts, method, budget="native"):
    """Largest logit difference between answers together and alone, of six tokens each; infinite for other tokens."""
    with prune(model, method, budget=budget) as pruning:
        alone, entering = [], []
        for prompt in prompts:
            alone.append(answered(model, prompt))
            entering.append(pruning.realised.entering)
        tokens, logits = answered(model, padded(prompts))
        assert [realised.entering for realised in pruning.realised_of_rows] == entering
    if not torch.equal(tokens, torch.cat([own for own, _ in alone])):
        return torch.inf
    return (logits - torch.cat([own for _, own in alone])).abs().max().item()


def merge(view):
    """Units 0 and 1 of the first picture become their mean, with a bias; the last unit is dropped."""
    n = view.n
    slot = torch.tensor([0, 0, *range(1, n - 2), -1])
    weight = torch.tensor([0.5, 0.5, *[1.0] * (n - 2)])
    return Selection(torch.tensor([0, *range(2, n - 1)]), slot, weight, key_bias=True)


def test_keeping_everything_answers_as_the_native_batch(model, prompts):
    tokens, logits = answered(model, padded(prompts))
    assert logits.std() > 0.5
    with prune(model, "random", budget=1.0):
        ours, own = answered(model, padded(prompts))
    assert torch.equal(ours, tokens) and (own - logits).abs().max() < 1e-6  # rotary tables are float32


@pytest.mark.parametrize("case", list(gold.cases(12)))
def test_pruned_prompts_answer_together_as_alone(family, model, prompts, case):
    pruner = gold.scripted(gold.cases(36)[case])
    if UNITS[family] == 3:  # small pictures keep something
        pruner = Scripted({site: keep_units(0, *units) for site, units in gold.cases(24)[case].items()})
    assert batch_error(model, prompts, pruner) < 1e-9


@pytest.mark.parametrize("policy", ["original", "renumber"])
def test_merged_and_renumbered_prompts_answer_together_as_alone(model, prompts, policy):
    script = {in_llm(2): merge, in_llm(4): keep_units(0, 2, 4)}
    assert batch_error(model, prompts, Scripted(script, policy=policy)) < 1e-9


@pytest.mark.parametrize("method", ["quietprune:init", "pact", "pyramiddrop", "visionzip"])
def test_published_methods_answer_together_as_alone(model, prompts, method):
    assert batch_error(model, prompts, method, 0.6) < 1e-9


def test_eager_attention_answers_the_same(family, prompts):
    assert batch_error(TINY[family].build(torch.float64, "eager"), prompts, Scripted({in_llm(2): merge})) < 1e-9


def test_beams_of_a_batch_stay_with_their_prompts(family, model):
    """One picture each: transformers 5.18 mixes up the pictures of a prompt of several when it expands beams."""
    made = [TINY[family].processed(ROWS[family][0], seed=3 + row, text=words) for row, words in enumerate(TEXTS)]
    prompts = [{**prompt, "pixel_values": prompt["pixel_values"].double()} for prompt in made]
    pruner = Scripted({in_llm(2): keep_units(0, 2, 4)})
    options = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 5, "do_sample": False}
    batch = padded(prompts)
    length = batch["input_ids"].shape[1]
    with prune(model, pruner, budget="native"):
        alone = [model.generate(**one, **options)[:, one["input_ids"].shape[1] :].tolist() for one in prompts]
        out = model.generate(**batch, **options)
    assert torch.equal(out[:, :length], batch["input_ids"].repeat_interleave(2, 0))
    together = out[:, length:].tolist()
    stripped = [[token for token in row if token] for row in together]  # 0 fills up what ended early
    assert stripped == [[token for token in row if token] for rows in alone for row in rows]


def test_forward_gives_the_logits_of_each_prompt_padded_on_the_left(model, prompts):
    pruner = Scripted({in_llm(2): keep_units(0, 2)})
    with prune(model, pruner, budget="native"), torch.no_grad():
        alone = [model(**prompt).logits for prompt in prompts]
        together = model(**padded(prompts)).logits
    for own, row in zip(alone, together, strict=True):
        assert torch.equal(row[-own.shape[1] :], own[0]) and not row[: -own.shape[1]].any()


def test_a_length_limit_counts_the_callers_batch(model, prompts):
    batch = padded(prompts)
    limit = batch["input_ids"].shape[1] + 3
    with prune(model, "random", budget=0.5):
        out = model.generate(**batch, max_length=limit, min_length=limit, do_sample=False)
    assert out.shape[1] == limit


def test_afterwards_nothing_is_left_on_the_model(model, prompts):
    own = {name: value for name, value in vars(model).items()}
    with prune(model, "fastv", budget=0.6):
        answered(model, padded(prompts))
    assert vars(model) == own and ALL_ATTENTION_FUNCTIONS._local_mapping == {}
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_what_a_batch_cannot_be_is_refused_with_advice(model, prompts):
    batch = padded(prompts)
    text = torch.where(batch["input_ids"] == model.config.image_token_id, 5, batch["input_ids"])
    wrong = {
        "padding_side": {**batch, "attention_mask": batch["attention_mask"].flip(1)},
        "prompt 0 of the batch has no image": {**batch, "input_ids": text},
        "more images than": {**batch, **{name: batch[name][:2] for name in ("input_ids", "attention_mask")}},
        "output_attentions is not given": {**batch, "output_attentions": True},
        "use_cache=False": {**batch, "use_cache": False},
    }
    with prune(model, "random", budget=0.5):
        for words, one in wrong.items():
            with pytest.raises(ValueError, match=words):
                model.generate(**one, max_new_tokens=2, do_sample=False)


# Mutations: each breaks one thing; the tests above must notice.


def broken_case(model, prompts, method=None):
    return batch_error(model, prompts, method or Scripted({in_llm(2): merge, in_llm(4): keep_units(0, 2, 4)}))


def test_mutation_padding_is_seen(model, prompts, monkeypatch):
    monkeypatch.setattr(Together, "_mask", lambda self, number, new, hidden: None)
    assert broken_case(model, prompts) > 0.01


def test_mutation_sizes_forgotten_while_decoding(model, prompts, monkeypatch):
    original = Together._bias_of_prompts

    def broken(self, number, like):
        bias = original(self, number, like)
        return bias if bias is None else bias.clamp_max(0)

    monkeypatch.setattr(Together, "_bias_of_prompts", broken)
    assert broken_case(model, prompts) > 1e-4


def test_mutation_renumbering_forgotten_while_decoding(family, model, prompts, monkeypatch):
    if "qwen" in family:
        pytest.skip("a policy speaks of one-dimensional positions only")
    monkeypatch.setattr(Together, "_tables", lambda self, number, new, like, native: native)
    assert broken_case(model, prompts, Scripted({in_llm(2): keep_units(0, 2, 4)}, policy="renumber")) > 0.01


def test_mutation_pictures_handed_to_other_prompts(model, prompts, monkeypatch):
    original = batch_module._shared

    def broken(placeholders, pictures):
        rows = original(placeholders, pictures)
        return [[*row[:-1], rows[0][0]] if row[-1].tokens == rows[0][0].tokens else row for row in rows]

    monkeypatch.setattr(batch_module, "_shared", broken)
    same = [prompts[0], {**prompts[0], "pixel_values": prompts[0]["pixel_values"].flip(0) * 0.5}]
    assert batch_error(model, same, Scripted({in_llm(2): keep_units(0, 2, 4)})) > 0.01
