from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import IMAGE, Scripted, processed, qwen3_vl
from views import shape_of

from harness.budget.planning import misses_budget
from harness.flops.prefill import dims_of, planned_realised
from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from harness.models.families.resizing import assembled, cut, resampled
from harness.records.records import Record
from methods.base import PRE_TOKENIZATION, Budget, BudgetInfeasible, InvalidSelection, MissingSignal, Plan, Resize, Site
from methods.downsample import Downsample, nearest_grid, smaller_grids

SITE = Site(PRE_TOKENIZATION)


@pytest.mark.parametrize(
    ("k", "grid", "expected"),
    [
        (64, (24, 24), (8, 8)),
        (128, (24, 24), (11, 11)),  # 121: 11 x 11 is square, 12 x 10 would be 120
        (12, (4, 6), (3, 4)),  # 3:4 is nearer to 4:6 than 2:6
        (6, (4, 6), (2, 3)),  # the very aspect
        (2, (4, 4), (1, 2)),  # 1 x 2 and 2 x 1 are as near; the lower one
        (1, (9, 2), (1, 1)),
        (7, (1, 9), (1, 7)),
        (24, (4, 6), (4, 6)),
    ],
)
def test_the_nearest_aspect_that_fits_is_taken(k, grid, expected):
    assert nearest_grid(k, grid) == expected


@pytest.mark.parametrize("grid", [(1, 7), (4, 6), (8, 5), (16, 16), (24, 24)])
def test_no_budget_is_exceeded_and_no_side_grows(grid):
    for k in range(1, grid[0] * grid[1] + 1):
        rows, columns = nearest_grid(k, grid)
        assert rows * columns <= k and rows <= grid[0] and columns <= grid[1]
        assert rows * (columns + 1) > k or columns == grid[1]


def test_images_share_the_budget_and_each_keeps_a_unit():
    assert smaller_grids(20, shape_of((8, 8), (4, 4))) == ((4, 4), (2, 2))
    assert smaller_grids(2, shape_of((8, 8), (1, 1))) == ((1, 1), (1, 1))
    with pytest.raises(BudgetInfeasible, match="one an image, got 1") as error:
        Downsample().plan(Budget("layer_average", 1), shape_of((8, 8), (4, 4)))
    assert error.value.floor == 2
    with pytest.raises(BudgetInfeasible, match="no budget of its own"):
        Downsample().plan(Budget("native", 0), shape_of((4, 4)))


def test_pictures_in_tiles_of_one_size_are_refused_when_planned():
    tiled = replace(shape_of((4, 4)), tiles=((0, 16, 16),))
    with pytest.raises(MissingSignal, match=r"tiles of one size.*--method pool or grid"):
        Downsample().plan(Budget("layer_average", 4), tiled)


def test_units_and_image_are_two_ways_of_writing_the_same_pixels():
    image = torch.rand(3, 8, 12)
    units = cut(image, 4)
    assert units.shape == (6, 3, 4, 4)
    assert torch.equal(units[4], image[:, 4:8, 4:8])
    assert torch.equal(assembled(units, (2, 3)), image)


def test_resampling_is_pils_bicubic():
    pixels = np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8)
    units = cut(torch.from_numpy(pixels).permute(2, 0, 1) / 255, 4)
    ours = assembled(resampled(units, ((4, 6),), ((2, 3),)), (2, 3)).permute(1, 2, 0)
    theirs = np.asarray(Image.fromarray(pixels).resize((12, 8), Image.Resampling.BICUBIC)) / 255
    assert np.abs(ours.numpy() - theirs).max() < 2.5 / 255  # PIL rounds between its two passes


@pytest.mark.parametrize("grids", [((4, 6),), ((6, 6), (3, 5))])
def test_the_model_sees_what_it_would_see_of_the_smaller_picture(grids):
    model = qwen3_vl()
    engine = Engine(Qwen3VL(model), Downsample(), pixel_std=(0.1,) * 3)  # random pixels stay inside [0, 1]
    inputs = engine.family.inputs(processed(grids))
    plan = engine.plan(Budget("layer_average", inputs.shape.n // 2), inputs.shape)
    ours = engine.prefill(inputs, plan)
    wanted = smaller_grids(inputs.shape.n // 2, inputs.shape)
    batch = processed(wanted)
    smaller = engine.family.resized(inputs, wanted, (0.5,) * 3, (0.1,) * 3)
    batch["pixel_values"] = smaller.pixels
    assert torch.equal(smaller.prompt.input_ids, batch["input_ids"])
    assert (smaller.prompt.input_ids == IMAGE).sum() == sum(rows * columns for rows, columns in wanted)
    with torch.no_grad():
        native = model(**batch, logits_to_keep=1).logits
    assert torch.equal(ours.logits, native)
    assert ours.realised.entering == plan.entering
    assert ours.realised.vit_tokens == (tuple(4 * rows * columns for rows, columns in wanted),) * 8
    told = planned_realised(dims_of(model.config), inputs.shape, plan, inputs.text, engine.pruner)
    assert told == ours.realised


def test_a_picture_at_its_own_size_is_itself():
    family = Qwen3VL(qwen3_vl())
    inputs = family.inputs(processed(((4, 6), (3, 1))))
    same = family.resized(inputs, inputs.shape.grids, (0.5,) * 3, (0.1,) * 3)
    first_frame = inputs.pixels.view(-1, 3, 2, 16)[:, :, :1].expand(-1, -1, 2, -1).reshape(inputs.pixels.shape)
    torch.testing.assert_close(same.pixels, first_frame, atol=1e-5, rtol=0)
    assert torch.equal(same.prompt.positions, inputs.prompt.positions) and same.shape == inputs.shape


def test_generation_goes_on_from_the_smaller_prompt():
    engine = Engine(Qwen3VL(qwen3_vl()), Downsample(), pixel_std=(0.1,) * 3)
    inputs = engine.family.inputs(processed())
    plan = engine.plan(Budget("layer_average", 8), inputs.shape)
    out, trace = engine.generate(inputs, plan, max_new_tokens=3, do_sample=False)
    assert trace.realised.entering == (8,) * 6 and trace.realised.kept == {}
    assert out.shape[1] <= inputs.text_tokens + 8 + 3


def test_a_resize_that_breaks_its_plan_is_refused():
    for sizes, match in (((Resize(3, 3),), "at most 8 units"), ((Resize(1, 1),) * 2, "1 images, .* for 2")):
        engine = Engine(Qwen3VL(qwen3_vl()), Scripted({SITE: lambda view, sizes=sizes: sizes}))
        inputs = engine.family.inputs(processed())
        with pytest.raises(InvalidSelection, match=match):
            engine.prefill(inputs, Plan({SITE: 8}))


def test_the_shortfall_is_allowed_for_this_control_alone():
    record = Record("a", "a", "", "", "", 0.0, 24, asked_tokens=11, entering=(8,) * 6)
    assert not misses_budget(record, "layer_average", "downsample")
    assert misses_budget(record, "layer_average", "grid") and misses_budget(record, "layer_average")
    assert misses_budget(replace(record, entering=(13,) * 6), "layer_average", "downsample")
