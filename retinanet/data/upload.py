"""A batch on the device, in as few copies as there are kinds of memory."""

import torch
from torch import Tensor

from retinanet.structures import Batch, Targets


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with all its tensors on `device`; all but pixels and features go there in one copy."""
    if device.type == "cpu":
        return batch
    whole = [batch.sizes_B2, batch.original_sizes_B2, batch.image_ids_B, *(t.classes_G for t in batch.targets)]
    real = [*(t.boxes_G4 for t in batch.targets), *(t.crowd_C4 for t in batch.targets)]
    sent = packed_copies([*whole, *real], device)
    sizes_B2, original_sizes_B2, image_ids_B, *others = sent
    images = len(batch.targets)
    classes, boxes, crowds = others[:images], others[images : 2 * images], others[2 * images :]
    return Batch(
        images=batch.images.to(device, non_blocking=True),
        sizes_B2=sizes_B2,
        original_sizes_B2=original_sizes_B2,
        image_ids_B=image_ids_B,
        targets=[Targets(*of_image) for of_image in zip(boxes, classes, crowds, strict=True)],
        features=[level.to(device, non_blocking=True) for level in batch.features],
    )


def packed_copies(tensors: list[Tensor], device: torch.device) -> list[Tensor]:
    """Copies of the tensors on `device`, which are views of one; tensors of wider dtypes must come first."""
    sizes = [tensor.nbytes for tensor in tensors]
    packed = torch.cat([tensor.contiguous().view(-1).view(torch.uint8) for tensor in tensors])
    if torch.cuda.is_available() and device.type == "cuda":
        packed = packed.pin_memory()  # else the copy would wait
    parts = packed.to(device, non_blocking=True).split(sizes)
    return [part.view(tensor.dtype).view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
