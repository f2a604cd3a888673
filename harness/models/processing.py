"""Processors without torchvision: the image half of a vision-language processor.

transformers' Qwen and InternVL processors insist on a video processor, which needs torchvision. `image_only` leaves
the video half out; it works with and without torchvision.
"""

from pathlib import Path

from transformers import AutoConfig, InternVLProcessor, Qwen2_5_VLProcessor, Qwen3VLProcessor


def image_only(processor_class: type) -> type:
    """The processor class without its video half; builds, loads and saves like the original."""
    return type(
        processor_class.__name__,
        (processor_class,),
        {
            "get_attributes": classmethod(lambda cls: ["image_processor", "tokenizer"]),
            "video_processor": None,
            "__module__": processor_class.__module__,
        },
    )


PROCESSORS = {"qwen3_vl": Qwen3VLProcessor, "qwen2_5_vl": Qwen2_5_VLProcessor, "internvl": InternVLProcessor}


def load_processor(folder: str | Path, backend: str = "pil", revision: str = "main"):
    """The processor saved in `folder` (or named on the hub), without its video half, images handled by `backend`.

    Raises ValueError where the model type has no processor here.
    """
    from transformers import AutoProcessor

    kind = AutoConfig.from_pretrained(folder, revision=revision, trust_remote_code=False).model_type
    if kind in ("llava", "llava_next"):
        return AutoProcessor.from_pretrained(folder, backend=backend, revision=revision, trust_remote_code=False)
    if kind not in PROCESSORS:
        raise ValueError(
            f"no processor known for model type {kind!r}; known: {', '.join(sorted(PROCESSORS))}, llava, llava_next"
        )
    return image_only(PROCESSORS[kind]).from_pretrained(folder, backend=backend, revision=revision)
