from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from literal.vprune import removal_order as literal_order
from literal.vprune import rho_of
from literal.vprune import threshold_walk as literal_walk
from PIL import Image
from views import shape_of, view_of

from methods.base import PRE_TOKENIZATION, Budget, BudgetInfeasible, PruningError, Site
from methods.vprune import VPrune, chi_square, cosine, give_up, groups

SITE = Site(PRE_TOKENIZATION)
GREY = (0.0, 0.25, 0.5, 1.0)


def select(pruner: VPrune, pixels: torch.Tensor, keep: int | None, *grids: tuple[int, int]) -> list[int]:
    return pruner.before_tokenization(view_of(SITE, pixels, keep, shape_of(*grids))).keep.tolist()


def constant(*values: float, side: int = 4) -> torch.Tensor:
    """Units of one grey each: (n, 3, side, side)."""
    return torch.tensor(values)[:, None, None, None].expand(-1, 3, side, side).clone()


def white_share(*quarters: int) -> torch.Tensor:
    """Units of 2x2 pixels of which so many are white, the rest black."""
    unit = [[1.0] * white + [0.0] * (4 - white) for white in quarters]
    return torch.tensor(unit).view(-1, 1, 2, 2).expand(-1, 3, 2, 2).clone()


def textured(n: int, seed: int, side: int = 4) -> torch.Tensor:
    """Units of a random colour each, with a little noise: no two pairs are equally far apart."""
    generator = torch.Generator().manual_seed(seed)
    colour = torch.rand(n, 3, 1, 1, generator=generator)
    return (colour + 0.3 * torch.rand(n, 3, side, side, generator=generator)).clamp(0, 1)


def order_of(pruner: VPrune, pixels: torch.Tensor, rows: int, columns: int) -> list[int]:
    places = torch.arange(rows * columns).view(rows, columns)
    return pruner.removals(pruner.colours(pixels), places).tolist()


def test_chi_square_of_half_black_half_white_units_by_hand():
    # 196 pixels: (147, 49) against (98, 98) in the outer bins: 49^2 / 245 + 49^2 / 147.
    histogram = VPrune().colours(white_share(1, 2)).histogram
    assert histogram.tolist() == [[147, 0, 0, 0, 0, 0, 0, 49], [98, 0, 0, 0, 0, 0, 0, 98]]
    assert chi_square(histogram[None])[0, 0, 1].item() == pytest.approx(2401 / 245 + 2401 / 147)


def test_luma_weighs_the_channels():
    pixels = torch.zeros(3, 3, 2, 2)
    for channel in range(3):
        pixels[channel, channel] = 1  # pure red, green, blue: luma .299, .587, .114
    assert VPrune().colours(pixels).histogram.argmax(dim=1).tolist() == [2, 4, 0]


@pytest.mark.parametrize(
    ("hist", "bins", "total"), [("luma", 8, 196), ("rgb_joint4", 64, 196), ("rgb_marginal8", 24, 588)]
)
def test_histograms_count_196_pixels_whatever_the_unit(hist, bins, total):
    histogram = VPrune(hist=hist).colours(textured(5, seed=0, side=6)).histogram
    assert histogram.shape == (5, bins)
    assert histogram.sum(dim=1).tolist() == pytest.approx([total] * 5)


def test_joint_histogram_bin_of_a_colour():
    pixels = torch.tensor([1.0, 0.3, 0.5]).view(1, 3, 1, 1).expand(1, 3, 2, 2)  # levels 3, 1, 2 of 4
    assert VPrune(hist="rgb_joint4").colours(pixels).histogram.argmax().item() == (3 * 4 + 1) * 4 + 2


def test_chi_square_is_symmetric_zero_on_equal_units_and_at_most_392():
    d = chi_square(VPrune().colours(torch.cat([textured(6, seed=1), constant(0.0, 1.0)])).histogram[None])[0]
    assert torch.equal(d, d.T) and d.diag().eq(0).all() and d.min() >= 0
    assert d.max().item() == d[6, 7].item() == 392


def test_cosine_of_centred_pixels():
    c = cosine(VPrune().colours(constant(*GREY)).vector[None])[0]
    # black and 0.25 are both below mid-grey, white is opposite, mid-grey has no direction
    expected = [[1, 1, 0, -1], [1, 1, 0, -1], [0, 0, 1, 0], [-1, -1, 0, 1]]
    torch.testing.assert_close(c, torch.tensor(expected).float())


def test_cosine_equals_the_dot_product_and_is_exactly_one_for_equal_units():
    vector = VPrune().colours(textured(6, seed=2).repeat(2, 1, 1, 1)).vector
    c = cosine(vector[None])[0]
    torch.testing.assert_close(c, vector @ vector.T, atol=1e-6, rtol=0)
    assert (c.diagonal(offset=6) == 1).all() and c.max() <= 1 and c.min() >= -1 - 1e-6


def test_mean_colour_vector():
    pixels = torch.tensor([0.6, 0.0, 0.8]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert VPrune(cos_vector="mean_rgb").colours(pixels).vector[0].tolist() == pytest.approx([0.6, 0, 0.8])


def test_groups_of_an_odd_grid_lack_members_at_the_border():
    assert groups(torch.arange(15).view(3, 5), 2).tolist() == [
        [0, 1, 5, 6],
        [2, 3, 7, 8],
        [4, -1, 9, -1],
        [10, 11, -1, -1],
        [12, 13, -1, -1],
        [14, -1, -1, -1],
    ]


def test_removals_of_four_units_by_hand():
    # White pixels 0, 1, 2, 4 of 4. Chi-square: (1,2) 26.1, (0,1) 56, (0,2) 130.7, (2,3) 130.7, (1,3) 235, (0,3) 392:
    # unit 2 goes (later of the closest pair), then 1, then 3; unit 0 is never removed.
    pruner, pixels = VPrune(combine="chi_only"), white_share(0, 1, 2, 4)
    assert order_of(pruner, pixels, 2, 2) == [2, 1, 3, 0]
    assert select(pruner, pixels, 2, (2, 2)) == [0, 3]


def test_removals_of_a_level_are_sorted_by_cost_over_all_groups():
    # White pixels of group 0 (units 0 1 4 5): 0 2 4 4; of group 1 (units 2 3 6 7): 1 2 1 2. Free removals first:
    # 5 (as 4), 6 (as 2), 7 (as 3); then 3 at 26.1 (beside 2); then 1 at 130.7, as far from 0 as from 4; then 4.
    pixels = white_share(0, 2, 1, 2, 4, 4, 1, 2)
    assert order_of(VPrune(combine="chi_only"), pixels, 2, 4) == [5, 6, 7, 3, 1, 4, 2, 0]


def test_a_group_gives_up_the_later_member_of_its_closest_pair_until_one_is_left():
    distances = torch.tensor([[0.0, 2, 9, 9], [2, 0, 9, 9], [9, 9, 0, 3], [9, 9, 3, 0]])
    cost, slot = give_up(distances[None], torch.ones(1, 4, dtype=torch.bool))
    assert cost.tolist() == [[2, 3, 9]] and slot.tolist() == [[1, 3, 2]]
    cost, slot = give_up(distances[None], torch.tensor([[True, False, True, False]]))  # at a right border
    assert cost.tolist() == [[9, torch.inf, torch.inf]] and slot[0, 0] == 2


def test_a_constant_image_keeps_the_first_unit_of_each_group_natively_and_any_budget_exactly():
    for grid, expected in [((4, 4), [0, 2, 8, 10]), ((3, 5), [0, 2, 4, 10, 12, 14])]:
        pixels = constant(*[0.3] * (grid[0] * grid[1]))
        assert select(VPrune(), pixels, None, grid) == expected
        for keep in range(1, grid[0] * grid[1]):
            assert len(select(VPrune(), pixels, keep, grid)) == keep
        assert select(VPrune(), pixels, len(expected), grid) == expected


def test_a_constant_image_loses_the_later_members_of_the_first_group_first():
    assert order_of(VPrune(), constant(*[0.3] * 8), 2, 4) == [1, 4, 5, 3, 6, 7, 2, 0]


def test_a_checkerboard_keeps_one_of_each_colour_in_a_group():
    pixels = constant(*[float((r + c) % 2) for r in range(4) for c in range(4)])
    assert select(VPrune(), pixels, None, (4, 4)) == [0, 1, 2, 3, 8, 9, 10, 11]


def test_white_noise_loses_nothing_natively_since_no_two_units_point_the_same_way():
    noise = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert select(VPrune(), noise, None, (4, 4)) == list(range(16))
    assert select(VPrune(combine="chi_only", t_chi=20.0), noise, None, (4, 4)) != list(range(16))


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (1, 7), (23, 17)])
@pytest.mark.parametrize("group", [2, 3, 4])
def test_every_budget_is_met_exactly_in_ascending_order_and_kept_sets_are_nested(grid, group):
    n = grid[0] * grid[1]
    pruner, pixels = VPrune(group=group), textured(n, seed=n)
    order = order_of(pruner, pixels, *grid)
    assert sorted(order) == list(range(n))
    larger = set(range(n))
    for keep in range(n - 1, 0, -1 if n < 50 else -37):
        kept = select(pruner, pixels, keep, grid)
        assert len(kept) == keep and kept == sorted(kept) and set(kept) <= larger
        larger = set(kept)


def test_every_group_keeps_a_unit_while_there_are_as_many_tokens_as_groups():
    pixels = textured(35, seed=5)
    for keep in range(12, 35):  # a 5x7 grid has 3 x 4 groups
        kept = torch.tensor(select(VPrune(), pixels, keep, (5, 7)))
        assert len(set((kept // 7 // 2 * 4 + kept % 7 // 2).tolist())) == 12


@pytest.mark.parametrize("combine", ["and", "or", "chi_only", "cos_only"])
@pytest.mark.parametrize(("rows", "columns", "group"), [(4, 4, 2), (5, 3, 2), (6, 6, 3), (5, 9, 4)])
def test_batched_groups_decide_what_the_literal_walk_and_ordering_decide(rows, columns, group, combine):
    n = rows * columns
    pixels = textured(n, seed=rows * columns + group)
    pruner = VPrune(group=group, combine=combine, t_chi=60.0, tau_cos=0.6)
    rho = rho_of(pixels, 60.0, 0.6, combine)
    assert select(pruner, pixels, None, (rows, columns)) == literal_walk(rho, rows, columns, group)
    if combine in ("and", "cos_only"):  # histograms of 16 pixels repeat: only cosines make all pairs differ
        assert order_of(pruner, pixels, rows, columns)[:-1] == literal_order(rho, rows, columns, group)


def test_literal_parity_is_about_images_that_lose_some_units_and_keep_some():
    kept = select(VPrune(t_chi=60.0, tau_cos=0.6), textured(45, seed=49), None, (5, 9))
    assert 12 < len(kept) < 40


def test_looser_thresholds_prune_more_and_the_two_rules_bracket_each_measure():
    pixels = textured(16, seed=3)[None]

    def pairs(**settings) -> int:
        pruner = VPrune(**settings)
        colours = pruner.colours(pixels[0])
        batch = type(colours)(colours.histogram[None], colours.vector[None])
        return int((pruner.difference(batch) <= 1).sum())

    chi = [pairs(combine="chi_only", t_chi=t) for t in (5.0, 20.0, 80.0, 300.0)]
    assert chi == sorted(chi) and chi[0] < chi[-1]
    loose = {"t_chi": 80.0, "tau_cos": 0.5}
    both, either = pairs(combine="and", **loose), pairs(combine="or", **loose)
    one, other = pairs(combine="chi_only", **loose), pairs(combine="cos_only", **loose)
    assert both <= min(one, other) < max(one, other) <= either and both + either == one + other


def test_mirroring_the_image_mirrors_the_distances():
    pixels = textured(16, seed=4)
    mirrored = pixels.view(4, 4, 3, 4, 4).flip(1, 4).reshape(16, 3, 4, 4)
    pruner, places = VPrune(), torch.arange(16).view(4, 4)
    there = pruner.difference(pruner.colours(pixels).of(groups(places, 2)))
    back = pruner.difference(pruner.colours(mirrored).of(groups(places, 2)))
    swap = [1, 0, 3, 2]  # the group on the other side, its members left for right
    torch.testing.assert_close(back[swap][:, swap][:, :, swap], there)


def test_each_image_gets_its_share_and_is_compared_with_itself_alone():
    left, right = textured(16, seed=6), constant(*[0.3] * 8)
    kept = select(VPrune(), torch.cat([left, right]), 9, (4, 4), (2, 4))
    assert [i for i in kept if i < 16] == select(VPrune(), left, 6, (4, 4))
    assert [i - 16 for i in kept if i >= 16] == select(VPrune(), right, 3, (2, 4))
    native = select(VPrune(), torch.cat([left, right]), None, (4, 4), (2, 4))
    assert [i - 16 for i in native if i >= 16] == [0, 2]


def test_every_image_keeps_a_unit():
    assert select(VPrune(), constant(*[0.3] * 20), 2, (4, 4), (2, 2)) == [0, 16]
    with pytest.raises(BudgetInfeasible) as caught:
        VPrune().plan(Budget("layer_average", 1), shape_of((4, 4), (2, 2)))
    assert caught.value.floor == 2


def test_native_plan_leaves_the_count_to_the_method():
    plan = VPrune().plan(Budget("native", 0), shape_of((4, 4)))
    assert plan.keeps == {SITE: None} and plan.entering == ()


def test_exact_plan_enters_k_tokens_into_every_layer():
    plan = VPrune().plan(Budget("layer_average", 5), shape_of((4, 4), llm_layers=3))
    assert plan.keeps == {SITE: 5} and plan.entering == (5, 5, 5)


def test_no_question_and_no_model_is_consulted():
    assert VPrune().needs(shape_of((4, 4))) == ()


@pytest.mark.parametrize(
    "settings",
    [
        {"group": 5},
        {"hist": "hsv"},
        {"hist_bins": 1},
        {"t_chi": 0},
        {"cos_vector": "dino"},
        {"tau_cos": 1.0},
        {"combine": "xor"},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(PruningError, match=next(iter(settings))):
        VPrune(**settings)


@pytest.mark.parametrize(
    ("image", "pruned_percent"),
    [
        ("astronaut.png", (11.46, 14.76, 17.19)),
        ("coffee.png", (13.02, 18.58, 26.04)),
        ("chelsea.png", (8.16, 10.07, 13.19)),
        ("camera.png", (33.16, 35.24, 38.19)),
        ("rocket.jpg", (37.85, 41.32, 47.22)),
    ],
)
def test_pruned_share_of_known_photographs_has_not_moved(image, pruned_percent):
    # Ours, at 336 x 336 with units of 14: thresholds 5, 10, 20. Means 20.7, 24.0, 28.4; the paper has 22.7, 24.9, 27.8
    # on COCO photographs.
    skimage = pytest.importorskip("skimage")
    path = Path(skimage.__file__).parent / "data" / image
    if not path.is_file():
        pytest.skip(f"this scikit-image does not carry {image}")
    picture = Image.open(path).convert("RGB").resize((336, 336), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(picture)).float() / 255
    units = pixels.view(24, 14, 24, 14, 3).permute(0, 2, 4, 1, 3).reshape(576, 3, 14, 14)
    pruned = [100 * (1 - len(select(VPrune(t_chi=t), units, None, (24, 24))) / 576) for t in (5.0, 10.0, 20.0)]
    assert pruned == pytest.approx(pruned_percent, abs=0.5)
