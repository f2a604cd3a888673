"""Presets: which models, budgets and benchmarks a paper's table has, so that its name is enough to redo it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from harness.records.errors import UsageError, nearest


@dataclass(frozen=True)
class Suite:
    """A preset. limit: of each benchmark's samples. left_out: what the paper has and this harness cannot score offline.

    downsampled: side factors; the suite then also judges only what the model gets wrong on an image so much smaller.
    """

    name: str
    title: str
    benchmarks: tuple[str, ...]
    models: tuple[str, ...]
    budgets: tuple[str, ...]
    seen_in: str
    limit: int | None = None
    left_out: tuple[str, ...] = ()
    downsampled: tuple[int, ...] = ()


LLAVA, LLAVA_13B = "llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-13b-hf"
LLAVA_NEXT = "llava-hf/llava-v1.6-vicuna-7b-hf"
QWEN3 = ("Qwen/Qwen3-VL-4B-Instruct", "Qwen/Qwen3-VL-8B-Instruct")
INTERNVL3 = ("OpenGVLab/InternVL3-1B-hf", "OpenGVLab/InternVL3-8B-hf")
CLASSIC = (
    "gqa", "mmbench_en_dev", "mmbench_cn_dev", "mme", "pope", "scienceqa_img", "vqav2_val", "textvqa_val_ocr",
    "vizwiz_val",
)  # fmt: skip

_ALL = (
    Suite(
        "smoke",
        "Twenty samples each of four benchmarks: does everything run?",
        ("pope", "gqa", "textvqa_val", "ai2d"),
        ("reference-a",),
        ("50%",),
        "ours",
        limit=20,
    ),
    Suite(
        "vprune",
        "V-PRUNE's eight",
        (
            "crpe_relation_vlmevalkit", "ai2d_vlmevalkit", "abench_vlmevalkit", "aesbench_val",
            "hallusionbench_vlmevalkit", "pope_vlmevalkit", "aokvqa_vlmevalkit", "taskmeanything",
        ),
        (LLAVA, LLAVA_NEXT),
        ("native",),
        "V-PRUNE; by VLMEvalKit's rules, the only tool that has all eight",
    ),
    Suite(
        "quietprune",
        "QuietPrune's six",
        ("mmbench_en_dev", "mmstar", "mmmu_val", "ai2d", "ocrbench", "hallusionbench"),
        (*INTERNVL3, *QWEN3),
        ("50%", "80%", "70%", "60%", "40%", "30%", "20%"),
        "QuietPrune; the six are named by a secondary source",
    ),
    Suite(
        "llava15-classic",
        "The LLaVA-1.5 table of most papers",
        CLASSIC,
        (LLAVA, LLAVA_13B),
        ("192", "128", "64"),
        "SparseVLM, VisionZip, PyramidDrop, HiPrune",
        left_out=("MM-Vet (judged by GPT)",),
    ),
    Suite(
        "llava15-cdp",
        "The LLaVA-1.5 table of CDPruner and VisPruner",
        CLASSIC,
        (LLAVA,),
        ("128", "64", "32"),
        "CDPruner, VisPruner",
        left_out=("MM-Vet (judged by GPT)",),
    ),
    Suite(
        "llavanext",
        "The LLaVA-NeXT table, up to 2,880 tokens",
        CLASSIC,
        (LLAVA_NEXT,),
        ("640", "320", "160"),
        "HiPrune, VisPruner, CDPruner",
        left_out=("MM-Vet (judged by GPT)",),
    ),
    Suite(
        "divprune",
        "DivPrune's table without its captions",
        ("gqa", "mmbench_en_dev", "mme", "mmmu_val", "pope", "scienceqa_img", "seedbench_image"),
        (LLAVA, LLAVA_NEXT),
        ("9.8%",),
        "DivPrune",
        left_out=("COCO-2017, Flickr30k and NoCaps captions (CIDEr needs Java)", "OK-VQA"),
    ),
    Suite(
        "uniprune",
        "UniPruneBench, what needs no judge",
        ("mme", "mmbench_en_dev", "seedbench2plus_vlmevalkit", "ocrbench", "scienceqa_img", "pope", "hallusionbench"),
        (LLAVA, *INTERNVL3, "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"),
        ("33.3%", "22.2%", "11.1%"),
        "UniPruneBench",
        left_out=("MathVista, MathVision, MIA-Bench (judged by GPT)",),
    ),
    Suite(
        "pact",
        "PACT's table without its videos",
        (
            "mmmu_val", "infographicvqa_val", "mme", "mmstar", "docvqa_val", "mmbench_en_dev", "ai2d", "chartqa",
            "scienceqa_img", "textvqa_val",
        ),
        ("llava-hf/llava-onevision-qwen2-7b-ov-hf", "Qwen/Qwen2-VL-7B-Instruct"),
        ("native",),
        "PACT",
        left_out=("MuirBench, LLaVA-interleave", "VideoMME, MLVU, PerceptionTest, EgoSchema (video)"),
    ),
    Suite(
        "ocr-dense",
        "Text in documents, charts and pictures: what pruning hurts most",
        ("ocrbench", "docvqa_val", "infographicvqa_val", "chartqa", "ai2d", "textvqa_val"),
        (*QWEN3, *INTERNVL3),
        ("80%", "50%", "33.3%", "22.2%", "11.1%"),
        "PixelPrune, HiPrune",
    ),
    Suite(
        "vtc",
        "Against downsampling by 2, 3, 4, 5 and 10",
        ("mmstar", "mme", "mmbench_en_dev", "ocrbench", "chartqa", "gqa", "pope"),
        ("Qwen/Qwen2-VL-7B-Instruct", "llava-hf/llava-onevision-qwen2-7b-ov-hf"),
        ("25%", "11.1%", "6.25%", "4%", "1%"),
        "VTC-Bench",
    ),
    Suite(
        "hard",
        "Only what the model gets right in full, and wrong on an image whose sides are 2 or 3 times smaller",
        ("mmstar", "mme", "mmbench_en_dev", "ocrbench", "chartqa", "gqa"),
        QWEN3[:1],
        ("25%", "11.1%"),
        "the idea of VTC-Bench's group A",
        downsampled=(2, 3),
    ),
)  # fmt: skip
SUITES: Mapping[str, Suite] = MappingProxyType({suite.name: suite for suite in _ALL})


def find_suite(name: str) -> Suite:
    """The suite of that name. Raises UsageError with the nearest names."""
    if name not in SUITES:
        raise UsageError(f"no suite {name!r}; nearest: {nearest(name, SUITES)}. `harness list suites` names them all")
    return SUITES[name]
