"""How each project names the modules of a RetinaNet, as data, and the maps between these names. Pure.

In every project, a tensor's name is its module's name, a dot and `weight`, `bias`, `running_mean` or `running_var`.
"""

from typing import NamedTuple


class Shape(NamedTuple):
    """The quantities that determine which modules a network has."""

    blocks: tuple[int, int, int, int]
    """Residual blocks of C2 to C5."""
    bottleneck: bool
    depth: int
    """Convolutions of a subnet before its last one."""
    head_gn: bool


class Naming(NamedTuple):
    """Templates of one project's names.

    {stage} is 1..4 for C2 to C5 and {res} is one more; {level} is 0..2 for P3 to P5 and {p} is 3..5; {i} numbers the
    convolutions of a subnet, and {at} and {norm_at} are positions in a sequence that includes norms and activations.
    """

    stem: str
    stem_norm: str
    block: str
    conv: str
    """Within a block; {n} is 1..3."""
    norm: str
    shortcut: str
    shortcut_norm: str
    lateral: str
    output: str
    p6: str
    p7: str
    class_conv: str
    class_norm: str
    class_predict: str
    box_conv: str
    box_norm: str
    box_predict: str


RETINANET = Naming(
    stem="backbone.stages.0.0",
    stem_norm="backbone.stages.0.1",
    block="backbone.stages.{stage}.{block}",
    conv="conv{n}",
    norm="bn{n}",
    shortcut="downsample.0",
    shortcut_norm="downsample.1",
    lateral="fpn.lateral.{level}",
    output="fpn.output.{level}",
    p6="fpn.p6",
    p7="fpn.p7",
    class_conv="class_head.tower.{at}",
    class_norm="class_head.tower.{norm_at}",
    class_predict="class_head.predict",
    box_conv="box_head.tower.{at}",
    box_norm="box_head.tower.{norm_at}",
    box_predict="box_head.predict",
)

TORCHVISION = Naming(
    stem="backbone.body.conv1",
    stem_norm="backbone.body.bn1",
    block="backbone.body.layer{stage}.{block}",
    conv="conv{n}",
    norm="bn{n}",
    shortcut="downsample.0",
    shortcut_norm="downsample.1",
    lateral="backbone.fpn.inner_blocks.{level}.0",
    output="backbone.fpn.layer_blocks.{level}.0",
    p6="backbone.fpn.extra_blocks.p6",
    p7="backbone.fpn.extra_blocks.p7",
    class_conv="head.classification_head.conv.{i}.0",
    class_norm="head.classification_head.conv.{i}.1",
    class_predict="head.classification_head.cls_logits",
    box_conv="head.regression_head.conv.{i}.0",
    box_norm="head.regression_head.conv.{i}.1",
    box_predict="head.regression_head.bbox_reg",
)

DETECTRON2 = Naming(
    stem="backbone.bottom_up.stem.conv1",
    stem_norm="backbone.bottom_up.stem.conv1.norm",
    block="backbone.bottom_up.res{res}.{block}",
    conv="conv{n}",
    norm="conv{n}.norm",
    shortcut="shortcut",
    shortcut_norm="shortcut.norm",
    lateral="backbone.fpn_lateral{p}",
    output="backbone.fpn_output{p}",
    p6="backbone.top_block.p6",
    p7="backbone.top_block.p7",
    class_conv="head.cls_subnet.{at}",
    class_norm="head.cls_subnet.{norm_at}",
    class_predict="head.cls_score",
    box_conv="head.bbox_subnet.{at}",
    box_norm="head.bbox_subnet.{norm_at}",
    box_predict="head.bbox_pred",
)

MMDETECTION = Naming(
    stem="backbone.conv1",
    stem_norm="backbone.bn1",
    block="backbone.layer{stage}.{block}",
    conv="conv{n}",
    norm="bn{n}",
    shortcut="downsample.0",
    shortcut_norm="downsample.1",
    lateral="neck.lateral_convs.{level}.conv",
    output="neck.fpn_convs.{level}.conv",
    p6="neck.fpn_convs.3.conv",
    p7="neck.fpn_convs.4.conv",
    class_conv="bbox_head.cls_convs.{i}.conv",
    class_norm="bbox_head.cls_convs.{i}.gn",
    class_predict="bbox_head.retina_cls",
    box_conv="bbox_head.reg_convs.{i}.conv",
    box_norm="bbox_head.reg_convs.{i}.gn",
    box_predict="bbox_head.retina_reg",
)


def block_name(naming: Naming, stage: int, block: int) -> str:
    """The name of one residual block; stage 1..4."""
    return naming.block.format(stage=stage, res=stage + 1, block=block)


def tower_names(conv: str, norm: str, index: int, head_gn: bool) -> tuple[str, str]:
    """The names of a subnet's convolution number `index` and of its norm."""
    at = index * (3 if head_gn else 2)
    places = {"i": index, "at": at, "norm_at": at + 1}
    return conv.format(**places), norm.format(**places)


def modules(naming: Naming, shape: Shape) -> list[str]:
    """The names of all modules with tensors, in the same order for every naming."""
    names = [naming.stem, naming.stem_norm]
    for stage, count in enumerate(shape.blocks, start=1):
        for block in range(count):
            prefix = block_name(naming, stage, block)
            parts = [template.format(n=n) for n in (1, 2, 3)[: 2 + shape.bottleneck] for template in naming[3:5]]
            if block == 0 and (stage > 1 or shape.bottleneck):
                parts += [naming.shortcut, naming.shortcut_norm]
            names += [f"{prefix}.{part}" for part in parts]
    for level in range(3):
        names += [t.format(level=level, p=level + 3) for t in (naming.lateral, naming.output)]
    names += [naming.p6, naming.p7]
    for conv, norm in ((naming.class_conv, naming.class_norm), (naming.box_conv, naming.box_norm)):
        for index in range(shape.depth):
            names += tower_names(conv, norm, index, shape.head_gn)[: 1 + shape.head_gn]
    return [*names, naming.class_predict, naming.box_predict]


def translate(name: str, module_map: dict[str, str]) -> str:
    """A tensor's name with its module renamed; unchanged if the module is not in the map."""
    module, _, leaf = name.rpartition(".")
    return f"{module_map[module]}.{leaf}" if module in module_map else name


def name_map(source: Naming, target: Naming, shape: Shape) -> dict[str, str]:
    """Module names of `source` -> those of `target`, a bijection."""
    return dict(zip(modules(source, shape), modules(target, shape), strict=True))
