"""The families that have a tiny model, by name alone: the process that starts the judging one loads no torch."""

FAMILIES = ("internvl", "llava", "llava_next", "qwen2_5_vl", "qwen3_vl")
