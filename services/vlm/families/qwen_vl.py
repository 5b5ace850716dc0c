"""What the Qwen-VL models share: patches in merged order, a grid of features, M-RoPE.

Image tokens have a row and a column in the text model's rotary positions (Wang et al., 2024). The
size of the patches' grid is not passed along: ``pixel_values`` stay pictures, and features stay a
grid, so their shapes have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.vision_utils import get_vision_position_ids

from services.common.errors import InvalidInput
from services.vlm.families.base import VlmFamily
from services.vlm.packing import Packed, Tree
from services.vlm.preprocess import resize
from services.vlm.transfer import upload

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
        grid_thw = self._grid_thw(batch, rows, columns)
        # The sizes stay on the host, where the tower reads them in each layer.
        vision = self.model.model.get_image_features(
            self.patchify(pixel_values), grid_thw, **self.tower_inputs(grid_thw)
        )
        return self.joined_features(vision).view(batch, rows, columns, -1)

    def tower_inputs(self, grid_thw: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the tower would else compute from the sizes where those are, by its names."""
        positions = get_vision_position_ids(grid_thw, self.image_processor.merge_size)
        return {"position_ids": upload(positions, self.device)}

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
        """``image_grid_thw`` [batch, 3], on the host: frames, rows and columns of patches before
        merging."""
        merge = self.image_processor.merge_size
        grid = torch.tensor([[1, rows * merge, columns * merge]])
        return grid.expand(batch, 3)

    def image_placeholder(self, pixel_values: torch.Tensor) -> str:
        rows, columns = self._grid(pixel_values)
        return f"<|vision_start|>{_IMAGE_PAD * (rows * columns)}<|vision_end|>"

    def split_features(self, features: torch.Tensor) -> Sequence[torch.Tensor]:
        width = self.text_model.config.hidden_size
        return torch.split(features.flatten(0, 2), width, dim=-1)

    def position_ids(self, packed: Packed, features: torch.Tensor) -> torch.Tensor:
        """[3, rows, length]: a token's are those that it has in its conversation."""
        grid = self._grid_thw(1, *features.shape[1:3])
        placed = {one: self._tree_positions(one, grid) for one in dict.fromkeys(packed.trees)}
        positions = torch.zeros(3, *packed.input_ids.shape, dtype=torch.long)
        for row, one in enumerate(packed.trees):
            positions[:, row, : len(one.ids)] = placed[one]
        return positions

    def _tree_positions(self, tree: Tree, grid: torch.Tensor) -> torch.Tensor:
        positions = torch.zeros(3, len(tree.ids), dtype=torch.long)
        for talk, path in zip(tree.conversations, tree.paths, strict=True):
            input_ids = torch.tensor([talk.input_ids])
            of_talk, _ = self.model.model.get_rope_index(
                input_ids,
                **self.text_inputs(self.is_image(input_ids)),
                image_grid_thw=grid,
                attention_mask=torch.ones_like(input_ids),
            )
            positions[:, torch.tensor(path)] = of_talk[:, 0, : len(path)]
        return positions

    def text_inputs(self, is_image: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return {"mm_token_type_ids": is_image.int()}

    def vision_inputs(self, pixel_values: torch.Tensor) -> Mapping[str, torch.Tensor]:
        grid_thw = self._grid_thw(len(pixel_values), *self._grid(pixel_values))
        return {
            **super().vision_inputs(self.patchify(pixel_values)),
            "image_grid_thw": grid_thw.to(self.device),
        }
