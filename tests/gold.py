"""Gold tests that every family shares: pruning equals the native model with the pruned tokens masked as keys.

A family says how to build it and which keys of its ViT belong to a unit (`Gold`); the rest is the same for all. Only
the family under test runs our code: the references are the native `forward` and `generate`, and plain loops here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from masked import masked
from tiny import Scripted, in_llm, keep_units
from torch import Tensor, nn

from harness.models.clock import Untimed
from harness.models.engine import Engine
from harness.models.families.family import Family, Inputs
from methods.base import IN_VIT, INTERFACE, PRE_TOKENIZATION, Budget, Selection, Site

Case = Mapping[Site, tuple[int, ...]]  # site -> units of one image that stay; nested, since what is gone is gone
PIXELS, FACE = Site(PRE_TOKENIZATION), Site(INTERFACE)


@dataclass(frozen=True)
class Gold:
    """A family under test.

    build(dtype, attention): a tiny model. processed(grids, seed=...): a prompt as its processor gives it.
    vit_keys(family, inputs, gone): what each attention call of a native ViT block must not see, where `gone` (n,) bool
    says which units have been dropped: (tokens,), (images, tokens) for one batch, or a list with one mask a call.
    not_in_vit(inputs): (n,) True for visual tokens that are no ViT tokens; a cut in front of the interface ends them.
    """

    family: type[Family]
    build: Callable[..., nn.Module]
    processed: Callable[..., dict[str, Tensor]]
    vit_keys: Callable[[Family, Inputs, Tensor], Tensor | list[Tensor]]
    not_in_vit: Callable[[Inputs], Tensor] = lambda inputs: torch.zeros(inputs.shape.n, dtype=torch.bool)

    def batch(self, model: nn.Module, grids, seed: int = 1) -> dict[str, Tensor]:
        """A prompt in the model's precision."""
        given = self.processed(grids, seed=seed)
        return {**given, "pixel_values": given["pixel_values"].to(model.dtype)}

    def keys_of_block(self, number: int, family: Family, inputs: Inputs, gone: Tensor) -> Tensor | list[Tensor]:
        """`vit_keys` of one block, for towers whose blocks differ."""
        return self.vit_keys(family, inputs, gone)

    def engine(self, model: nn.Module, pruner=None) -> Engine:
        return Engine(self.family(model), pruner)


def cases(n: int) -> dict[str, Case]:
    """Cuts of an image of n >= 12 units at every hook point, and all of them together. For 8 blocks and 6 layers."""
    order = random.Random(0).sample(range(n), n)
    units = lambda share: tuple(sorted(order[: max(2, round(share * n))]))  # noqa: E731
    between = Site(IN_VIT, 2, "attention")
    return {
        "pixels": {PIXELS: units(0.5)},
        "vit": {Site(IN_VIT, 1): units(0.8), Site(IN_VIT, 3): units(0.5), Site(IN_VIT, 5): units(0.3)},
        "vit, behind an attention": {between: units(0.6), Site(IN_VIT, 4, "attention"): units(0.3)},
        "interface": {FACE: units(0.4)},
        "llm": {in_llm(2): units(0.5)},
        "llm twice": {in_llm(1): units(0.5), in_llm(3): units(0.2)},
        "all together": {
            PIXELS: units(0.95), Site(IN_VIT, 1): units(0.85), between: units(0.75), Site(IN_VIT, 5): units(0.65),
            FACE: units(0.5), in_llm(1): units(0.3), in_llm(4): units(0.15),
        },
    }  # fmt: skip


def scripted(case: Case, image: int = 0, **options) -> Scripted:
    """A pruner that keeps the given units of one image, and everything of the others."""
    return Scripted({site: keep_units(*units, image=image) for site, units in case.items()}, **options)


def dead_keys(
    gold: Gold, family: Family, inputs: Inputs, case: Case, image: int = 0
) -> tuple[dict[nn.Module, Tensor | list[Tensor]], Tensor]:
    """(module -> keys that are gone, places of the prompt that survive) for the native model on everything."""
    mine = slice(sum(inputs.shape.images[:image]), sum(inputs.shape.images[: image + 1]))
    gone = torch.zeros(inputs.shape.n, dtype=torch.bool)
    dead: dict[nn.Module, Tensor | list[Tensor]] = {}

    def lose(site: Site) -> None:
        if site in case:
            gone[mine] |= ~torch.isin(torch.arange(inputs.shape.images[image]), torch.tensor(case[site]))

    lose(PIXELS)
    for number in range(family.vit_layers):
        dead[family.vision_attention(number)] = gold.keys_of_block(number, family, inputs, gone.clone())
        lose(Site(IN_VIT, number, "attention"))  # what no key sees, the block's MLP need not run on either
        lose(Site(IN_VIT, number))
    if any(site.hook in (PRE_TOKENIZATION, IN_VIT) for site in case):
        gone |= gold.not_in_vit(inputs)
    lose(FACE)
    absent = torch.zeros(inputs.prompt.length, dtype=torch.bool)
    for number, layer in enumerate(family.decoder.layers):
        lose(in_llm(number))
        dead[layer.self_attn] = absent = absent.index_put((inputs.prompt.visual_index,), gone)
    return dead, torch.nonzero(~absent).flatten()


def gold_error(gold: Gold, model: nn.Module, grids, case: Case, image: int = 0) -> float:
    """Largest logit difference over the survivors between our run and the masked native run."""
    batch, pruner = gold.batch(model, grids), scripted(case, image)
    engine = gold.engine(model, pruner)
    inputs = engine.family.inputs(batch)
    ours = engine.prefill(inputs, pruner.whole_plan(), logits_to_keep=0).logits
    dead, survivors = dead_keys(gold, engine.family, inputs, case, image)
    with masked(model, dead), torch.no_grad():
        native = model(**batch).logits[:, survivors]
    assert native.std() > 0.5  # a flat model would agree with anything
    return (ours - native).abs().max().item() if ours.shape == native.shape else torch.inf


def native_error(gold: Gold, grids, attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> float:
    """Largest logit difference when nothing is pruned; also holds the counts to the prompt's."""
    model = gold.build(dtype, attention)
    engine, batch = gold.engine(model), gold.batch(model, grids)
    inputs = engine.family.inputs(batch)
    ours = engine.prefill(inputs, engine.plan(Budget("layer_average", 1), inputs.shape), logits_to_keep=0)
    with torch.no_grad():
        native = model(**batch).logits
    assert ours.realised.entering == (inputs.shape.n,) * len(engine.family.decoder.layers)
    assert native.std() > 0.5
    return (ours.logits - native).abs().max().item()


def greedy_pair(gold: Gold, model: nn.Module, grids, case: Case, image: int = 0) -> tuple[list[int], list[int]]:
    """Ten greedy tokens: ours and those of the masked native model."""
    batch, pruner = gold.batch(model, grids, seed=5), scripted(case, image)
    engine = gold.engine(model, pruner)
    inputs = engine.family.inputs(batch)
    ours, trace = engine.generate(inputs, pruner.whole_plan(), max_new_tokens=10, do_sample=False)
    dead, _ = dead_keys(gold, engine.family, inputs, case, image)
    with masked(model, dead):
        native = model.generate(**batch, max_new_tokens=10, do_sample=False)
    short = inputs.text_tokens + trace.entering[0]
    return ours[0, short:].tolist(), native[0, inputs.prompt.length :].tolist()


def counts_of(
    gold: Gold, model: nn.Module, grids, case: Case, image: int = 0
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Visual tokens entering each LLM layer: measured, and as the case says."""
    pruner = scripted(case, image)
    engine = gold.engine(model, pruner)
    inputs = engine.family.inputs(gold.batch(model, grids))
    realised = engine.prefill(inputs, pruner.whole_plan()).realised
    dead, _ = dead_keys(gold, engine.family, inputs, case, image)
    gone = [int(dead[layer.self_attn].sum()) for layer in engine.family.decoder.layers]
    return realised.entering, tuple(inputs.shape.n - count for count in gone)


# The LLM once more, plainly: for renumbered positions and merges, which masks cannot express.


@dataclass(frozen=True)
class Cut:
    """At the input of a layer: rows of the sequence become these rows. matrix (T', T); positions: None = renumber."""

    matrix: Tensor
    keep: Tensor
    log_size: Tensor | None = None
    renumber: bool = False


@torch.no_grad()
def plain_llm(family: Family, embeds: Tensor, positions: Tensor, cuts: Mapping[int, Cut]) -> Tensor:
    """Logits (T', V) of a decoder, layer by layer, no cache. embeds (T, d), positions (R, T)."""
    decoder, hidden, log_size = family.decoder, embeds[None], embeds.new_zeros(embeds.shape[0])
    for number, layer in enumerate(decoder.layers):
        if number in cuts:
            cut = cuts[number]
            hidden = (cut.matrix.to(hidden) @ hidden[0])[None]
            length = hidden.shape[1]
            positions = torch.arange(length)[None] if cut.renumber else positions[:, cut.keep]
            log_size = log_size[cut.keep] if cut.log_size is None else cut.log_size.to(hidden)
        length = hidden.shape[1]
        causal = torch.full((length, length), torch.finfo(hidden.dtype).min, dtype=hidden.dtype).triu(1)
        tables = decoder.rotary_at(positions, hidden)
        out = layer(hidden, attention_mask=(causal + log_size)[None, None], position_embeddings=tables)
        hidden = out[0] if isinstance(out, tuple) else out
    language = family.model.model.language_model
    return family.model.lm_head(language.norm(hidden))[0]


def renumbered_error(gold: Gold, model: nn.Module, grids, at: Site, units: tuple[int, ...]) -> float:
    """Largest logit difference to a plain run in which the survivors of one image close their ranks at `at`."""
    batch, pruner = gold.batch(model, grids), scripted({at: units}, policy="renumber")
    engine = gold.engine(model, pruner)
    family = engine.family
    inputs = family.inputs(batch)
    ours = engine.prefill(inputs, pruner.whole_plan(), logits_to_keep=0).logits[0]
    embeds = native_embeddings(model, batch)
    start, end = inputs.prompt.spans[0]
    keep = torch.tensor([*range(start), *(start + unit for unit in units), *range(end, inputs.prompt.length)])
    cut = Cut(torch.eye(inputs.prompt.length)[keep], keep, renumber=True)
    plain = plain_llm(family, embeds, inputs.prompt.positions, {at.layer: cut})
    return (ours - plain).abs().max().item()


def merged_error(gold: Gold, model: nn.Module, grids, layer: int, bias: bool = True) -> float:
    """The same for a merge inside the LLM: units 1, 2, 3 of the first image become their mean, 5 is dropped."""
    joins, dropped = {2: 1, 3: 1}, {5}

    def merge(view) -> Selection:
        kept = [row for row in range(view.n) if row not in joins and row not in dropped]
        slot = torch.tensor([-1 if row in dropped else kept.index(joins.get(row, row)) for row in range(view.n)])
        weight = torch.where((slot == 1), 1 / 3, 1.0)
        return Selection(torch.tensor(kept), slot, weight, key_bias=bias)

    batch, pruner = gold.batch(model, grids), Scripted({in_llm(layer): merge})
    engine = gold.engine(model, pruner)
    inputs = engine.family.inputs(batch)
    ours = engine.prefill(inputs, pruner.whole_plan(), logits_to_keep=0).logits[0]
    start, length = inputs.prompt.spans[0][0], inputs.prompt.length
    keep = torch.tensor([row for row in range(length) if row - start not in {*joins, *dropped}])
    matrix = torch.eye(length)[keep]
    matrix[start + 1, start + 1 : start + 4] = 1 / 3
    sizes = torch.ones(keep.shape[0])
    sizes[start + 1] = 3
    cuts = {layer: Cut(matrix, keep, sizes.log())}
    plain = plain_llm(engine.family, native_embeddings(model, batch), inputs.prompt.positions, cuts)
    return (ours - plain).abs().max().item()


def native_embeddings(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """What the native model feeds into its first decoder layer, (T, d)."""
    seen = {}

    def look(module, args, kwargs):
        seen["hidden"] = args[0] if args else kwargs["hidden_states"]

    handle = model.model.language_model.layers[0].register_forward_pre_hook(look, with_kwargs=True)
    with torch.no_grad():
        model(**batch)
    handle.remove()
    return seen["hidden"][0]


def twins(gold: Gold, model: nn.Module, grids, rows: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states of the ViT with some units of the last image doubled: kept twice, merged with a key bias, and
    merged without. Equal tokens that merge with a bias must count as they did; without it they do not."""
    engine = gold.engine(model)
    family, inputs = engine.family, engine.family.inputs(gold.batch(model, grids))
    with torch.no_grad():
        whole = family.embed(inputs, None).in_order()
    counts = [segment.units for segment in whole.segments]
    n, last = sum(counts), counts[-1]
    assert last >= rows
    twice = torch.cat([torch.arange(n), torch.arange(n - rows, n)])
    slot = torch.cat([torch.arange(n), torch.arange(n - rows, n)])
    weight = 1 / torch.bincount(slot)[slot].to(model.dtype)

    def blocks(state, numbers):
        for number in numbers:
            state = family.run_mlp(number, family.run_attention(number, state))
        return state.in_order()

    with torch.no_grad():
        both = blocks(whole.select(Selection(twice), [*counts[:-1], last + rows]), range(2))
        merged = both.select(Selection(torch.arange(n), slot, weight, key_bias=True), counts)
        unbiased = replace(merged, biased=False)
        kept, ours, wrong = (blocks(s, range(2, family.vit_layers)) for s in (both, merged, unbiased))
    return kept.split(kept.hidden)[1][:n], ours.split(ours.hidden)[1], wrong.split(wrong.hidden)[1]


def encoded(engine: Engine, inputs: Inputs, pruner: Scripted):
    """(visual features as the native forward gets them, trace) of a scripted run."""
    with torch.no_grad(), engine.encoded(inputs, pruner.whole_plan(), 0, Untimed()) as run:
        features = run.arguments["mm_encoder_outputs"]["image"].pooler_output
        return torch.cat(list(features)), run.trace
