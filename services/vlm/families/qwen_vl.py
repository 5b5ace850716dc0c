"""What the Qwen-VL models share: patches in merged order, a grid of features, M-RoPE.

Image tokens have a row and a column in the text model's rotary positions (Wang et al., 2024). The
size of the patches' grid is not passed along: ``pixel_values`` stay pictures, and features stay a
grid, so their shapes have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from services.common.errors import InvalidInput
from services.vlm.families.base import VlmFamily
from services.vlm.preprocess import resize

_IMAGE_PAD = "<|image_pad|>"


class QwenVl(VlmFamily):
    """One image per conversation. ``pixel_values`` [batch, 3, h, w], each side a whole number of
    merged patches; features [batch, rows, columns, width] with a place for each merged patch."""

    # Not AutoImageProcessor's choice: if torchvision is installed, that one resizes without PIL.
    image_processor_class = "Qwen2VLImageProcessorPil"

    def pixel_values(self, unit_BCHW: torch.Tensor) -> torch.Tensor:
        height, width = unit_BCHW.shape[-2:]
        return self.normalize(resize(unit_BCHW, self._target_size(height, width), "bicubic"))

    @property
    def _merged_patch(self) -> int:
        """The side, in pixels, of the area of one image token."""
        side: int = self.image_processor.patch_size * self.image_processor.merge_size
        return side

    def _target_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after the processor's resize. Raises ``InvalidInput``."""
        limits = self.image_processor.size
        try:
            resized: tuple[int, int] = smart_resize(
                height,
                width,
                factor=self._merged_patch,
                min_pixels=limits["shortest_edge"],
                max_pixels=limits["longest_edge"],
            )
        except ValueError as error:
            raise InvalidInput(f"image of {width} × {height} pixels: {error}") from error
        return resized

    def processed(self, picture: Image.Image) -> torch.Tensor:
        height, width = self._target_size(picture.height, picture.width)
        patches = self.image_processor(picture, return_tensors="pt")["pixel_values"]
        return self.unpatchify(patches, height, width).to(self.device)

    def patchify(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The vision tower's input: [batch * patches, 3 * frames * patch * patch].

        As the image processor's ``patchify``: the patches of a merged patch follow one another,
        and a still image is equal frames.
        """
        processor = self.image_processor
        batch, channels = pixel_values.shape[:2]
        merge, patch = processor.merge_size, processor.patch_size
        rows, columns = self._grid(pixel_values)
        blocks = pixel_values.reshape(batch, channels, rows, merge, patch, columns, merge, patch)
        blocks = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6)
        frames = processor.temporal_patch_size
        repeated = blocks.expand(*blocks.shape[:6], frames, *blocks.shape[7:])
        return repeated.reshape(batch * rows * columns * merge**2, -1)

    def unpatchify(self, patches: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """The picture [1, 3, height, width] from which ``patchify`` made ``patches``."""
        processor = self.image_processor
        merge, patch = processor.merge_size, processor.patch_size
        rows, columns = height // self._merged_patch, width // self._merged_patch
        blocks = patches.reshape(
            rows, columns, merge, merge, -1, processor.temporal_patch_size, patch, patch
        )
        first_frame = blocks[..., 0, :, :]
        return first_frame.permute(4, 0, 2, 5, 1, 3, 6).reshape(1, -1, height, width)

    def image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        batch = len(pixel_values)
        rows, columns = self._grid(pixel_values)
        vision = self.model.model.get_image_features(
            self.patchify(pixel_values), self._grid_thw(batch, rows, columns)
        )
        return self.joined_features(vision).view(batch, rows, columns, -1)

    def joined_features(self, vision: Any) -> torch.Tensor:
        """All that the text model takes from the tower: [batch * rows * columns, width].

        What is embedded comes first, then what is added to the hidden states behind the first,
        second, … layer; each is as wide as the text model.
        """
        return torch.cat(vision.pooler_output)

    def _grid(self, pixel_values: torch.Tensor) -> tuple[int, int]:
        """(rows, columns) of merged patches."""
        height, width = pixel_values.shape[-2:]
        return height // self._merged_patch, width // self._merged_patch

    def _grid_thw(self, batch: int, rows: int, columns: int) -> torch.Tensor:
        """``image_grid_thw`` [batch, 3]: frames, rows and columns of patches before merging."""
        merge = self.image_processor.merge_size
        grid = torch.tensor([[1, rows * merge, columns * merge]], device=self.device)
        return grid.expand(batch, 3)

    def image_placeholder(self, pixel_values: torch.Tensor) -> str:
        rows, columns = self._grid(pixel_values)
        return f"<|vision_start|>{_IMAGE_PAD * (rows * columns)}<|vision_end|>"

    def hidden_states(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, features: torch.Tensor
    ) -> torch.Tensor:
        model = self.model.model
        embeds = model.get_input_embeddings()(input_ids)
        is_image = self.is_image(input_ids)
        embedded, *deeper = torch.split(features.flatten(0, 2), embeds.shape[-1], dim=-1)
        embeds = embeds.masked_scatter(is_image.unsqueeze(-1), embedded.to(embeds.dtype))
        # Without position ids the text model would silently count tokens in one dimension. They are
        # computed on the CPU, since that reads every row.
        position_ids, _ = model.get_rope_index(
            input_ids.cpu(),
            **{name: ids.cpu() for name, ids in self.text_inputs(is_image).items()},
            image_grid_thw=self._grid_thw(*features.shape[:3]).cpu(),
            attention_mask=attention_mask.cpu(),
        )
        layers = {}
        if deeper:
            layers = {"visual_pos_masks": is_image, "deepstack_visual_embeds": deeper}
        hidden: torch.Tensor = model.language_model(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=position_ids.to(self.device),
            use_cache=False,
            **layers,
        ).last_hidden_state
        return hidden

    def text_inputs(self, is_image: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return {"mm_token_type_ids": is_image.int()}

    def vision_inputs(self, pixel_values: torch.Tensor) -> Mapping[str, torch.Tensor]:
        grid_thw = self._grid_thw(len(pixel_values), *self._grid(pixel_values))
        return {
            **super().vision_inputs(self.patchify(pixel_values)),
            "image_grid_thw": grid_thw,
        }
