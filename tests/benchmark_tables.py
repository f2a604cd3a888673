# ruff: noqa: E501 (rows are tables)
"""What each fixture's question must read like, and what given answers must score: typed from the descriptions."""

from __future__ import annotations

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
SIZE = [(128, 96)]
COCO = "COCO_val2014_000000310196"
MOON = "Is the right circle larger than the left circle?"
RELATION = "What is the relation between the dog and the sofa?"
DIRECT = "Please answer directly with only the letter of the correct option and nothing else."
TOOL = (
    "Question: What colour is it?\nOptions:\nA. red\nB. blue\nC. green\nD. grey\n"
    "Please select the correct answer from the options above. \n"
)
TOOLS = (
    "ai2d_vlmevalkit", "ai2d_no_mask_vlmevalkit", "abench_vlmevalkit", "aokvqa_vlmevalkit", "scienceqa_vlmevalkit",
    "seedbench_vlmevalkit", "seedbench2plus_vlmevalkit", "aesbench_val", "aesbench_test", "taskmeanything",
)  # fmt: skip
METRIC_OF_TOOL = {
    "ai2d_vlmevalkit": "ai2d_mask", "ai2d_no_mask_vlmevalkit": "ai2d_no_mask", "abench_vlmevalkit": "abench_val",
    "aokvqa_vlmevalkit": "aokvqa", "scienceqa_vlmevalkit": "scienceqa_test", "seedbench_vlmevalkit": "seed_image",
    "seedbench2plus_vlmevalkit": "seed2plus",
}  # fmt: skip
REFCOCO = (
    "Bounding box coordinates are specified in the format (top-left x, top-left y, bottom-right x, bottom-right y). All "
    "values are floating point numbers bounded between 0 and 1. Please provide the bounding box coordinate of the region "
    "this sentence describes: the red"
)
STAR = "What colour is it?\nOptions: A: red, B: blue, C: green, D: grey\n" + LETTER[:-1]
EXIST = "Is there a train in this picture?"

# name -> id of a sample, its prompt, its cluster ("" = not looked at), the sizes of its images
ASKED: dict[str, tuple[str, str, str, list[tuple[int, int]]]] = {
    "pope": ("random/3", f"Is there a cup in the image?\n{SHORT}", COCO, SIZE),
    "pope_vlmevalkit": ("1", "Is there a dog in the image?", "", SIZE),
    "mme": ("existence/existence/000000006040.jpg", f"{EXIST}\n{SHORT}", "existence/existence/000000006040.jpg", SIZE),
    "hallusionbench": ("VD_illusion_0_1_0", MOON, "illusion/0", SIZE),
    "hallusionbench_vlmevalkit": ("VD_illusion_0_1_0", "Is the right circle larger?", "illusion/0", SIZE),
    "crpe_relation": ("1", f"{RELATION}\nA. on\nB. under\nC. beside\nD. in\n{DIRECT}", RELATION, SIZE),
    "crpe_relation_vlmevalkit": ("5", "Where is the dog? A. on  B. under  C. beside  D. in", "1", SIZE),
    "crpe_exist_vlmevalkit": ("3", "Which is here? A. on  B. under  C. beside  D. in", "0", SIZE),
    "ai2d": ("1", f"What eats grass?\nA. cow\nB. wolf\nC. owl\nD. snake\n{LETTER}", "1", SIZE),
    "abench_dev": ("0", f"Is the picture sharp?\nA. Yes\nB. No\n{LETTER}\n", "0", SIZE),
    "scienceqa_img": ("0", f"Context: Look.\nWhich is a solid?\nA. ice\nB. steam\n{LETTER}", "0", SIZE),
    "seedbench_image": ("102", f"How many are there?\nA. 1\nB. 2\nC. 3\nD. 4\n{LETTER}", "102.jpg", SIZE),
    "mmstar": ("2", STAR, "2", SIZE),
    "realworldqa": ("1", "How many lanes? Please answer directly with a single word or number.", "1", SIZE),
    "vstar": ("1", f"Is the dog left of the car?\nA. left\nB. right\n{LETTER}", "1", SIZE),
    "hrbench_4k": (
        "2",
        "What is on the sign?\nA. 12\nB. 34\nC. 56\nD. 78\nAnswer the option letter directly.",
        "",
        SIZE,
    ),
    "hrbench_8k": (
        "2",
        "What is on the sign?\nA. 12\nB. 34\nC. 56\nD. 78\nAnswer the option letter directly.",
        "",
        SIZE,
    ),
    "aokvqa": (
        "2Aq5RiEn7eyfWjEbpuYy81",
        "Question: Where is the dog?\nOptions:\nA. sofa\nB. bed\nC. car\nD. box\n"
        "Please select the correct answer from the options above. \n",
        "2Aq5RiEn7eyfWjEbpuYy81",
        SIZE,
    ),
    "mmbench_en_dev": (
        "1000241",
        f"A square. Which colour is it? There are several options:\nA. blue\nB. green\nC. red\n\n{LETTER}",
        "241",
        SIZE,
    ),
    "mmbench_cn_dev": (
        "252",
        "这是什么颜色? There are several options:\nA. 红\nB. 蓝\nC. 绿\n请直接使用所提供的选项字母作为答案回答。",
        "252",
        SIZE,
    ),
    "mmmu_val": (
        "validation_Art_1",
        f"Who painted <image 2> after <image 1>?\nA. Monet\nB. Degas\n\n{LETTER}",
        "validation_Art_1",
        [(96, 64), (128, 96)],  # in the order of the text
    ),
    "gqa": ("202225914", f"What is grey?\n{SHORT}", "n161313", SIZE),
    "vqav2_val": ("262148000", f"How many dogs are there?\n{SHORT}", "262148", SIZE),
    "textvqa_val": ("34602", f"What is the brand of this phone?\n{SHORT}", "003a8ae2ef43b901", SIZE),
    "textvqa_val_ocr": (
        "34602",
        f"What is the brand of this phone?\nReference OCR token: MIA, NOKIA\n{SHORT}",
        "003a8ae2ef43b901",
        SIZE,
    ),
    "vizwiz_val": (
        "VizWiz_val_00000001.jpg",
        f"Which colour?\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n{SHORT}",
        "VizWiz_val_00000001.jpg",
        SIZE,
    ),
    "chartqa": ("1", "Which country leads?\nAnswer the question with a single word.", "1", SIZE),
    "docvqa_val": ("49153", f"What is the date?\n{SHORT}", "14465", SIZE),
    "infographicvqa_val": ("98314", f"What share?\n{SHORT}", "98314", SIZE),
    "ocrbench": ("0", "what is written in the image?", "0", SIZE),
    "refcoco_val": ("379/1", REFCOCO, "379", SIZE),
    **{name: ("0", TOOL, "", SIZE) for name in TOOLS},
}

COPIES = {"241": "A", "1000241": "B", "252": "(B)"}  # a copy is wrong: the first question does not count
HALLUSION = {"VD_illusion_0_0_0": "Yes, it is.", "VD_illusion_0_0_1": "No", "VD_illusion_0_1_0": "yes"}
DATES = {"49153": "1/8/1993", "24580": "Pall"}
PEOPLE = {"262148000": "two", "262148001": "blue"}
BRANDS = {"34602": "Nokia", "34603": "the mia"}
YES = {"existence/existence/000000006040.jpg": "Yes", "existence/existence/000000006040.jpg~2": "no"}
CODE = {"code_reasoning/code_reasoning/0001.png": "yes it is", "code_reasoning/code_reasoning/0001.png~2": "yes"}

# name -> sample id -> answer, and what these answers must give
SCORED: dict[str, tuple[dict[str, str], dict[str, float]]] = {
    "pope": (
        {"adversarial/1": "No", "popular/2": "yes.", "random/3": "yes"},
        {
            "pope_accuracy": 2 / 3, "pope_f1": 2 / 3, "pope_precision": 1.0, "pope_recall": 0.5, "unparsed_ratio": 1 / 3,
            "pope_f1_vlmevalkit_rule": 1.0,
        },
    ),
    "pope_vlmevalkit": (
        {"0": "No", "1": "Yes, there is", "2": "no."},  # row 1 counts in two categories: yes right, yes right, yes missed
        {"pope_f1": 0.8, "pope_accuracy": 3 / 4, "pope_popular_f1": 1.0, "pope_random_f1": 2 / 3, "unparsed_ratio": 0.0,
         "pope_accuracy_lmms_eval_rule": 1 / 4},
    ),
    "mme": (
        YES | CODE,
        {"mme_perception_points": 200, "mme_cognition_points": 50, "mme_total_points": 250, "mme_both_right": 0.5},
    ),
    "hallusionbench": (
        HALLUSION,
        {
            "hallusion_answer_accuracy": 2 / 3, "hallusion_figure_accuracy": 1 / 2, "hallusion_question_accuracy": 1 / 2,
            "hallusion_mean_of_3": 5 / 9,
        },
    ),
    "hallusionbench_vlmevalkit": (
        HALLUSION,
        {"hallusion_mean_of_3": 5 / 9, "unparsed_ratio": 0.0, "hallusion_answer_accuracy_lmms_eval_rule": 2 / 3},
    ),
    "crpe_relation": ({"0": "B", "1": "under"}, {"crpe_row_accuracy": 1 / 2, "unparsed_ratio": 1 / 2}),
    "crpe_relation_vlmevalkit": (
        {str(place): answer for place, answer in enumerate("ADCBAAAA")},
        {
            "crpe_circular4": 1 / 2, "crpe_row_accuracy": 5 / 8, "crpe_predicate_circular4": 1.0,
            "crpe_subject_circular4": 0.0,
        },
    ),
    "crpe_exist_vlmevalkit": (
        {str(place): answer for place, answer in enumerate("ADCA")},
        {"crpe_circular4": 0.0, "crpe_row_accuracy": 3 / 4},
    ),
    "ai2d": ({"0": "B. b", "1": "cow"}, {"ai2d_exact_letter": 1 / 2, "unparsed_ratio": 1 / 2}),
    "abench_dev": ({"0": "(A)", "1": "a star"}, {"abench_accuracy_unparsed_wrong": 1 / 2, "unparsed_ratio": 1 / 2}),
    "scienceqa_img": ({"0": "A. ice", "1": "b"}, {"scienceqa_img_accuracy": 1 / 2, "unparsed_ratio": 0.0}),
    "seedbench_image": ({"101": "A", "102": "Dogs"}, {"seed_image_first_character": 1.0}),
    "mmstar": (
        {"0": "A: red", "1": "it is (C)", "2": "C"}, {"mmstar_mean_of_categories": 3 / 4, "mmstar_accuracy": 2 / 3},
    ),
    "realworldqa": ({"0": "B.", "1": "2."}, {"realworldqa_letter_or_exact": 1.0}),
    "vstar": (
        {"0": "A", "1": "left"},
        {"vstar_letter_accuracy": 1 / 2, "vstar_direct_attributes": 1.0, "vstar_relative_position": 0.0},
    ),
    "hrbench_4k": (
        {"0": "A", "1": "A", "2": "C"}, {"hrbench_4k_single_accuracy": 1 / 2, "hrbench_4k_cross_accuracy": 1.0},
    ),
    "hrbench_8k": ({"0": "A", "1": "B", "2": "?"}, {"hrbench_8k_letter_accuracy": 2 / 3, "unparsed_ratio": 1 / 3}),
    "aokvqa": (
        {"22MexNkBPpdZGX6sxbxVBH": "a cab", "2Aq5RiEn7eyfWjEbpuYy81": "B"}, {"aokvqa_choice_accuracy": 1 / 2},
    ),
    "mmbench_en_dev": (
        COPIES, {"mmbench_circular": 1 / 2, "mmbench_vanilla_accuracy": 1.0, "mmbench_row_accuracy": 2 / 3},
    ),
    "mmbench_cn_dev": (COPIES, {"mmbench_circular": 1 / 2}),
    "mmmu_val": (
        {"validation_Art_1": "(B)", "validation_Math_2": "The area is 12", "validation_Math_3": "hard to say"},
        {
            "mmmu_accuracy_unparsed_wrong": 2 / 3, "mmmu_choice_accuracy": 1 / 2, "mmmu_several_images_accuracy": 1 / 2,
            "unparsed_ratio": 1 / 3,
        },
    ),
    "gqa": ({"201307251": "Red.", "201640614": "no, it is not", "202225914": "Background"}, {"gqa_exact_match": 2 / 3}),
    # seven people gave 2 in some spelling of "2", three "two": all ten agree but one "3"
    "vqav2_val": (PEOPLE, {"vqav2_soft_accuracy": 1 / 2}),
    "textvqa_val": (BRANDS, {"textvqa_soft_accuracy": 1.0}),
    "textvqa_val_ocr": (BRANDS, {"textvqa_ocr_soft_accuracy": 1.0}),
    "vizwiz_val": (
        {"VizWiz_val_00000000.jpg": "unanswerable", "VizWiz_val_00000001.jpg": "blue"},
        {"vizwiz_soft_accuracy": (1 + (2 / 3 * 8 + 1 / 3 * 2) / 10) / 2, "vizwiz_unanswerable_ratio": 1 / 2},
    ),
    "chartqa": (
        {"0": "14", "1": "peru", "2": "57"},
        {
            "chartqa_relaxed_accuracy": 2 / 3, "chartqa_human_relaxed_accuracy": 1.0,
            "chartqa_augmented_relaxed_accuracy": 1 / 2,
        },
    ),
    "docvqa_val": (DATES, {"docvqa_anls": 0.875}),
    "infographicvqa_val": ({"98313": "facebook", "98314": "12 %"}, {"infographicvqa_anls": 0.875}),
    "ocrbench": (
        {"0": "the word centre", "1": "x^2+y"}, {"ocrbench_points_of_1000": 500, "ocrbench_contains_accuracy": 1 / 2},
    ),
    "refcoco_val": ({"379/0": "[0.25, 0.25, 0.5, 0.5]", "379/1": "[0, 0, 1, 1]"}, {"refcoco_accuracy_iou50": 1 / 2}),
    **{
        name: (
            {"0": "A", "1": "a square", "2": "left or right"},
            {
                f"{METRIC_OF_TOOL.get(name, name)}_infer_accuracy": 2 / 3,
                f"{METRIC_OF_TOOL.get(name, name)}_exact_letter_lmms_eval_rule": 1 / 3, "unparsed_ratio": 1 / 3,
            },
        )
        for name in TOOLS
    },
}  # fmt: skip
