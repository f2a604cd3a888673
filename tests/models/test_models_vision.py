"""Extra tokens and running aggregates in the ViT against a second, plain implementation; prompts by hand."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from tiny import EOS, IMAGE, Scripted, processed, qwen3_vl

from harness.models.attention import Capture
from harness.models.clock import Untimed
from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from harness.models.prompt import Prompt, VisualRows, image_spans, shorten
from harness.models.signals import mean_row
from methods.base import AGGREGATE, IN_VIT, INTERFACE, InvalidSelection, MissingSignal, Plan, Selection, Signal, Site

FIRST, SECOND = Site(IN_VIT, 2), Site(IN_VIT, 4)  # DeepStack taps stand at 1, 3 and 5: before, between, after
KEPT = {FIRST: (0, 1, 4, 7, 8, 9, 13, 14, 20, 23), SECOND: (1, 7, 9, 20)}
EXTRA = torch.linspace(-1, 1, 64, dtype=torch.float64).view(2, 32)


@dataclass(frozen=True)
class WithExtra(Scripted):
    name: ClassVar[str] = "with-extra"

    def extra_vit_tokens(self, question, patches, prepared):
        assert patches.shape[1] == 32 and question.shape[1] == 32
        return EXTRA


def weights_for(view, gone):
    """Made-up weights of the rows that go, patch by patch; an old aggregate's weight stands in patch 0."""
    weights = torch.zeros(view.n, 4, dtype=torch.float64)
    for row in range(view.n):
        if view.kind[row] == AGGREGATE:
            weights[row, 0] = 0.7
        elif view.unit[row].item() in gone:
            weights[row] = torch.tensor([0.1, 0.2, 0.05, 0.15]) * (1 + view.unit[row] / 10)
    return weights


def gather(site):
    def decide(view):
        visual = view.kind != AGGREGATE
        kept = torch.isin(view.unit, torch.tensor(KEPT[site])) & visual
        gone = set(view.unit[visual & ~kept].tolist())
        return Selection(torch.nonzero(kept).flatten(), aggregate=weights_for(view, gone))

    return decide


def turned(x, cos, sin):
    """RoPE by hand; the native rotation runs in float32."""
    x = x.float().double()
    return (x * cos + torch.cat([-x[..., 8:], x[..., :8]], -1) * sin).float().double()


@torch.no_grad()
def plain_vit(model, inputs):
    """Features and DeepStack rows of one image, token by token, dense attention, no packing."""
    visual = model.model.visual
    state = Qwen3VL(model).embed(inputs, None)
    patches = {unit: [state.hidden[4 * unit + p] for p in range(4)] for unit in range(24)}
    angles = {unit: [(state.cos[4 * unit + p], state.sin[4 * unit + p]) for p in range(4)] for unit in range(24)}
    still = (torch.ones(16, dtype=torch.float64), torch.zeros(16, dtype=torch.float64))
    extra, gathered, taps = list(EXTRA), None, {}
    for number, block in enumerate(visual.blocks):
        tokens = extra + [h for unit in patches for h in patches[unit]] + ([gathered] if gathered is not None else [])
        tables = [still] * 2 + [a for unit in patches for a in angles[unit]] + ([still] if gathered is not None else [])
        hidden = torch.stack(tokens)
        normal = block.norm1(hidden)
        query, key, value = block.attn.qkv(normal).view(len(tokens), 3, 2, 16).unbind(1)
        cos = torch.stack([c for c, _ in tables])[:, None].float().double()
        sin = torch.stack([s for _, s in tables])[:, None].float().double()
        query, key = turned(query, cos, sin), turned(key, cos, sin)
        weights = torch.einsum("ihd,jhd->hij", query, key).mul(16**-0.5).softmax(-1)
        mixed = torch.einsum("hij,jhd->ihd", weights, value).reshape(len(tokens), 32)
        hidden = hidden + block.attn.proj(mixed)
        hidden = hidden + block.mlp(block.norm2(hidden))
        extra = list(hidden[:2])
        for place, unit in enumerate(patches):
            patches[unit] = list(hidden[2 + 4 * place : 6 + 4 * place])
        gathered = hidden[-1] if gathered is not None else None
        if number in (1, 3, 5):
            taps[number] = (dict(patches), gathered)
        for site, kept in KEPT.items():
            if site.layer == number:
                gone = [unit for unit in patches if unit not in kept]
                base = torch.tensor([0.1, 0.2, 0.05, 0.15], dtype=torch.float64)
                total = sum(base[p] * (1 + unit / 10) * patches[unit][p] for unit in gone for p in range(4))
                gathered = total if gathered is None else total + 0.7 * gathered
                patches = {unit: patches[unit] for unit in kept}
    rows = [torch.cat(patches[unit])[None] for unit in patches] + [gathered.repeat(4)[None]]
    features = visual.merger(torch.cat(rows).view(-1, 32))
    deepstack = []
    for level, (then, aggregate) in enumerate(taps.values()):
        merger = visual.deepstack_merger_list[level]
        own = merger(torch.cat([torch.cat(then[unit])[None] for unit in patches]).view(-1, 32))
        last = torch.zeros(1, 32, dtype=torch.float64) if aggregate is None else merger(aggregate.repeat(4).view(4, 32))
        deepstack.append(torch.cat([own, last]))
    return features, deepstack


def test_extra_tokens_aggregates_and_deepstack_equal_the_plain_implementation():
    model = qwen3_vl(torch.float64)
    batch = processed()
    batch["pixel_values"] = batch["pixel_values"].double()
    pruner = WithExtra({FIRST: gather(FIRST), SECOND: gather(SECOND)})
    engine = Engine(Qwen3VL(model), pruner)
    inputs = engine.family.inputs(batch)
    plan = Plan({FIRST: 11, SECOND: 5})
    with torch.no_grad(), engine.encoded(inputs, plan, 0, Untimed()) as encoded:
        outputs = encoded.arguments["mm_encoder_outputs"]["image"]
    features, deepstack = plain_vit(model, inputs)
    assert (outputs.pooler_output[0] - features).abs().max() < 1e-5
    for ours, gold in zip(outputs.deepstack_features, deepstack, strict=True):
        assert (ours[0] - gold).abs().max() < 1e-5
    assert encoded.trace.vit_tokens == [(98,)] * 3 + [(43,)] * 2 + [(19,)] * 3
    assert encoded.prompt.spans == ((3, 8),)


def test_extra_tokens_are_read_by_their_attention_row():
    model = qwen3_vl()
    signal = Signal("rows", "vit", layer=2, queries="extra")
    seen = {}

    def look(view):
        seen["rows"] = view.signal(signal)
        return Selection(torch.arange(view.n))

    @dataclass(frozen=True)
    class OneExtra(Scripted):
        def extra_vit_tokens(self, question, patches, prepared):
            return EXTRA[:1].float()

    pruner = OneExtra({FIRST: look}, signals=(signal,))
    for grids in (((4, 6),), ((2, 3), (4, 6))):
        engine = Engine(Qwen3VL(model), pruner)
        inputs = engine.family.inputs(processed(grids))
        engine.prefill(inputs, Plan({FIRST: None}))
        assert seen["rows"].shape == (inputs.shape.n, 4)
        counts = inputs.shape.images
        for rows in seen["rows"].split(counts):
            assert 0.5 < rows.sum() < 1.0  # the rest of the softmax went to the extra token itself


def test_received_attention_is_the_mean_over_the_rows_of_the_same_image_and_reaches_the_interface():
    received, rows = Signal("rows", "vit", 7, "received"), Signal("rows", "vit", 7, "visual")
    by_head = Signal("rows", "vit", 7, "received", per_head=True)
    seen = {}

    def run(batch, *signals):
        def look(view):
            seen.update({signal: view.signal(signal) for signal in signals})
            return Selection(torch.arange(view.n))

        engine = Engine(Qwen3VL(qwen3_vl()), Scripted({Site(INTERFACE): look}, signals=signals))
        engine.prefill(engine.family.inputs(batch), Plan({Site(INTERFACE): None}))

    both = processed(((2, 3), (4, 6)))
    run(both, received, by_head)
    assert seen[received].shape == (30, 4) and seen[by_head].shape == (2, 30, 4)
    torch.testing.assert_close(seen[by_head].mean(0), seen[received])
    for grid, units, patches in (((2, 3), slice(0, 6), slice(0, 24)), ((4, 6), slice(6, 30), slice(24, 120))):
        alone = processed((grid,))
        alone["pixel_values"] = both["pixel_values"][patches]
        run(alone, rows)
        assert seen[rows].shape == (len(both["pixel_values"][patches]), *seen[received][units].shape)
        torch.testing.assert_close(seen[received][units], seen[rows].mean(0))
        assert abs(seen[received][units].sum() - 1) < 1e-5


def test_received_attention_is_summed_a_few_rows_at_a_time():
    generator = torch.Generator().manual_seed(0)
    capture = Capture(*(torch.randn(1, 2, 10, 4, generator=generator) for _ in "qk"), 0.5)
    rows = torch.arange(2, 10)
    whole = capture.logits(rows, causal=False).softmax(-1).mean(1, keepdim=True)
    torch.testing.assert_close(mean_row(capture, rows, at_once=3), whole)


def test_attention_before_the_softmax_cannot_be_received():
    signal = Signal("logits", "vit", 7, "received")
    engine = Engine(Qwen3VL(qwen3_vl()), Scripted({Site(INTERFACE): None}, signals=(signal,)))
    with pytest.raises(MissingSignal, match="ask for rows"):
        engine.prefill(engine.family.inputs(processed()), Plan({Site(INTERFACE): None}))


def test_one_image_can_gather_while_another_loses_nothing():
    model = qwen3_vl()

    def decide(view):
        keep = torch.nonzero((view.image == 0) | (view.unit < 3)).flatten()
        return Selection(keep, aggregate=(view.image == 1).float() * (view.unit >= 3))

    engine = Engine(Qwen3VL(model), Scripted({FIRST: decide}))
    inputs = engine.family.inputs(processed(((2, 3), (4, 6))))
    realised = engine.prefill(inputs, Plan({FIRST: 10})).realised
    assert realised.entering == (10,) * 6
    assert realised.vit_tokens[-1] == (24, 13)


def test_two_images_together_give_what_each_gives_alone():
    model = qwen3_vl(torch.float64)

    def decide(view):
        return Selection(torch.nonzero(view.unit < 3).flatten(), aggregate=(view.unit >= 3).double() / 7)

    engine = Engine(Qwen3VL(model), Scripted({FIRST: decide}))
    batch = processed(((2, 3), (4, 6)))
    batch["pixel_values"] = batch["pixel_values"].double()
    alone = [{**processed((grid,)), "pixel_values": pixels} for grid, pixels in zip(
        ((2, 3), (4, 6)), batch["pixel_values"].split([24, 96]), strict=True)]  # fmt: skip

    def features(one):
        with torch.no_grad(), engine.encoded(engine.family.inputs(one), Plan({FIRST: None}), 0, Untimed()) as encoded:
            return encoded.arguments["mm_encoder_outputs"]["image"].pooler_output

    for ours, single in zip(features(batch), alone, strict=True):
        assert torch.allclose(ours, features(single)[0], atol=1e-9)


def test_an_interface_aggregate_is_the_last_row_of_its_image():
    model = qwen3_vl(torch.float64)

    def decide(view):
        return Selection(torch.tensor([5, 2]), aggregate=torch.full((view.n,), 0.25, dtype=torch.float64))

    engine = Engine(Qwen3VL(model), Scripted({Site(INTERFACE): decide}))
    batch = processed()
    inputs = engine.family.inputs({**batch, "pixel_values": batch["pixel_values"].double()})
    with torch.no_grad():
        with engine.encoded(inputs, Plan({}), 0, Untimed()) as whole:
            tokens = whole.arguments["mm_encoder_outputs"]["image"].pooler_output[0]
        with engine.encoded(inputs, Plan({Site(INTERFACE): 3}), 0, Untimed()) as short:
            ours = short.arguments["mm_encoder_outputs"]["image"].pooler_output[0]
    assert torch.equal(ours[:2], tokens[[5, 2]])
    assert torch.allclose(ours[2], tokens.sum(0) * 0.25)


def test_a_selection_that_breaks_its_plan_is_refused():
    engine = Engine(Qwen3VL(qwen3_vl()), Scripted({Site(INTERFACE): lambda view: Selection(torch.arange(5))}))
    inputs = engine.family.inputs(processed())
    with pytest.raises(InvalidSelection, match="asks for 4 of 24 rows, the selection leaves 5"):
        engine.prefill(inputs, Plan({Site(INTERFACE): 4}))


def test_prompts_by_hand():
    prompt = Prompt(torch.tensor([[1, IMAGE, IMAGE, IMAGE, IMAGE, EOS]]), torch.arange(6)[None], ((1, 5),))
    zero, one = torch.zeros(3, dtype=torch.int64), torch.ones(3)
    rows = VisualRows(zero, torch.tensor([3, 0, -1]), torch.tensor([0, 0, AGGREGATE]), one, (3,))
    short = shorten(prompt, rows, "original")
    assert short.input_ids.tolist() == [[1, IMAGE, IMAGE, IMAGE, EOS]]
    assert short.positions.tolist() == [[0, 4, 1, 2, 5]]  # the aggregate: round half even of the mean of 2 and 3
    assert short.spans == ((1, 4),)
    assert shorten(prompt, rows, "renumber").positions.tolist() == [[0, 1, 2, 3, 4]]
    assert shorten(prompt, rows, torch.tensor([7, 8, 9])).positions.tolist() == [[0, 7, 8, 9, 5]]


def test_adjacent_images_are_told_apart_by_their_counts():
    ids = [5, IMAGE, IMAGE, IMAGE, 6, IMAGE]
    assert image_spans(ids, IMAGE, [1, 2, 1]) == ((1, 2), (2, 4), (5, 6))
    with pytest.raises(ValueError, match="4 image placeholders, the images have 3"):
        image_spans(ids, IMAGE, [1, 2])


def test_pixels_of_units_come_back_in_place():
    """An image whose units have distinct constant colours survives patching and un-normalising."""
    model = qwen3_vl()
    colours = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))  # a grid of 2 x 3 units
    patches = colours.repeat_interleave(4, 0)[:, :, None, None, None].expand(-1, -1, 2, 4, 4)
    batch = processed(((2, 3),))
    batch["pixel_values"] = ((patches - 0.5) / 0.25).reshape(24, -1)
    family = Qwen3VL(model)
    units = family.unit_pixels(family.inputs(batch), (0.5,) * 3, (0.25,) * 3)
    assert units.shape == (6, 3, 8, 8)
    assert torch.allclose(units, colours[:, :, None, None].expand_as(units), atol=1e-6)
