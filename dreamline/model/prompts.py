"""The chat templates and task tokens of DreamLite, as the stock pipelines have them (a test compares)."""

from __future__ import annotations

GENERATE_TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, "
    "quantity, text, spatial relationships of the objects and background:<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
GENERATE_DROP = 34  # tokens in front of the user's text, whose states are not used
EDIT_TEMPLATE = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, "
    "texture, objects, background), then explain how the user's text instruction should alter "
    "or modify the image. Generate a new image that meets the user's requirements while maintaining "
    "consistency with the original input where appropriate.<|im_end|>\n<|im_start|>user\n"
    "<|vision_start|><|image_pad|><|vision_end|>{}<|im_end|>\n<|im_start|>assistant\n"
)
EDIT_DROP = 64
MAX_TOKENS = 200  # of a generation prompt; edits have no limit
STATES = "post-norm"  # the text encoder's states that are used: those after its final norm
IMAGE_SIDE = 512  # the source is squeezed to this square before the processor sees it


def generate_prompt(prompt: str) -> str:
    """A caption with its task token; the empty prompt of guidance has none."""
    return f"[Generate]: {prompt}"


def edit_prompt(instruction: str) -> str:
    """An instruction with its task token and the words that explain the diptych."""
    return (
        "[Edit]: A diptych with two side-by-side images of the same scene. "
        f"Compared to the right side, the left one has {instruction}"
    )
