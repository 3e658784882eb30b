"""The Triton kernel of the focal loss, without a GPU: interpreted in NumPy, and its machine code counted."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from places import PROJECT
from torch import Tensor

from retinanet.losses import divided
from retinanet.losses.classification import over_positives
from retinanet.losses.divided import KernelFocal, runs_kernels
from retinanet.structures import ClassTargets

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="no Triton here")

INTERPRETED = """
import torch
from retinanet.losses.focal import focal
from retinanet.losses.focal_kernel import DividedFocal
from retinanet.structures import BACKGROUND, IGNORE

def run(loss, logits, labels, scale):
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, labels)
    (value * scale).sum().backward()
    return value.detach(), leaf.grad

generator = torch.Generator().manual_seed(0)
for classes in (3, 80):
    for gamma in (0.0, 0.5, 2.0):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            logits = (torch.randn(2, 75, classes, generator=generator) * 6 - 2).to(dtype)
            labels = torch.randint(IGNORE, classes, (2, 75), generator=generator)
            labels[torch.rand(2, 75, generator=generator) < 0.6] = BACKGROUND
            logits[labels == IGNORE] = float("nan")
            normaliser = torch.tensor([3.0, 7.0])
            plain = lambda x, y: focal(x, y, alpha=0.25, gamma=gamma) / normaliser.to(x)[:, None]
            own = lambda x, y: DividedFocal.apply(x, y, normaliser, gamma, 0.25, 0.75)
            known = logits.double().masked_fill((labels == IGNORE)[..., None], 0.0)
            for scale in (1.0, torch.linspace(0.5, 2.0, 150).view(2, 75)):
                value, gradient = run(own, logits, labels, scale)
                exact, slope = run(plain, known, labels, scale)
                case = f"{classes} classes, gamma {gamma}, {dtype}"
                torch.testing.assert_close(value.double(), exact, rtol=5e-7, atol=1e-12, msg=f"{case}: value")
                # bfloat16 is rounded once more where the scale is not 1, and in NumPy cut off.
                kept = {torch.float32: 8e-7, torch.bfloat16: 2e-2, torch.float16: 1e-3}[dtype]
                least = 1e-7 if dtype == torch.float16 else 1e-12
                torch.testing.assert_close(gradient.double(), slope, rtol=kept, atol=least, msg=f"{case}: gradient")
                if dtype == torch.float32:
                    worst = (value - run(plain, known.float(), labels, scale)[0]).abs().max() / exact.max()
                    assert worst < 4e-7 and (gradient - slope).abs().max() < 4e-7 * slope.abs().max(), case
                assert gradient[labels == IGNORE].abs().sum() == 0 and value[labels == IGNORE].abs().sum() == 0
print("equal")
"""


@needs_triton
@pytest.mark.slow
def test_interpreted_it_equals_the_plain_loss_and_its_gradient() -> None:
    """In a process of its own, because Triton decides at import. The plain loss is computed in float64."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True)
    assert done.stdout == "equal\n", done.stderr


def instructions_a_logit(classes: int, gamma: float, dtype: str, folder: Path) -> float:
    """Instructions of the kernel for sm_90, all of a program over the logits of each of its threads."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from retinanet.losses.focal_kernel import focal_kernel, tile

    shape = {"classes": classes, "gamma": gamma, "trains": True, **tile(classes)}
    of = {"labels": "*i64", "logits": f"*{dtype}", "gradients": f"*{dtype}", "rows": "i32", "anchors": "i32"}
    of |= {"divisors": "*fp32", "losses": "*fp32", "positive_weight": "fp32", "negative_weight": "fp32"}
    names = focal_kernel.arg_names
    source = ASTSource(
        focal_kernel,
        signature={name: of.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in shape.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in ("logits", "labels", "losses", "gradients")},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    code = folder / "kernel.cubin"
    code.write_bytes(compiled.asm["cubin"])
    disassembler = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    text = subprocess.run([disassembler, "-c", code], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?([A-Z0-9_.]+)", text, re.MULTILINE)
    executed = [name for name in found if name not in ("NOP", "BRA")]
    assert executed.count("EXIT") >= 1
    return len(executed) / (shape["block"] * classes / (4 * 32))


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize(("gamma", "dtype"), [(2.0, "bf16"), (1.5, "bf16"), (0.0, "bf16"), (2.0, "fp32")])
def test_a_logit_takes_at_most_60_instructions_on_an_h100(
    gamma: float, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assert instructions_a_logit(80, gamma, dtype, tmp_path) <= 60


def test_there_is_no_kernel_for_the_cpu() -> None:
    logits, labels = torch.zeros(1, 2, 3, requires_grad=True), torch.zeros(1, 2, dtype=torch.int64)
    assert not runs_kernels(logits)
    assert KernelFocal(2.0, 0.25, 0.75)(logits, labels, torch.ones(1)) is None


def test_a_kernel_that_fails_is_replaced_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> Tensor:
        raise RuntimeError("no such GPU\nand more")

    monkeypatch.setattr(divided, "runs_kernels", lambda logits: True)
    stub = SimpleNamespace(DividedFocal=SimpleNamespace(apply=fail))
    monkeypatch.setitem(sys.modules, "retinanet.losses.focal_kernel", stub)
    kernel, logits = KernelFocal(2.0, 0.25, 0.75), torch.zeros(1, 2, 3)
    with pytest.warns(UserWarning, match=r"without its own kernel: .*: no such GPU$"):
        assert kernel(logits, torch.zeros(1, 2), torch.ones(1)) is None
    assert kernel(logits, torch.zeros(1, 2), torch.ones(1)) is None


@pytest.mark.parametrize("computes", [True, False])
def test_a_loss_takes_the_kernels_result_where_there_is_one(computes: bool) -> None:
    targets: Any = SimpleNamespace(labels_BA=torch.zeros(1, 2), normaliser_B=torch.tensor([4.0]))
    wanted = torch.tensor([[1.0, 2.0]])

    def kernel(logits: Tensor, labels: Tensor, normaliser: Tensor) -> Tensor | None:
        return wanted if computes else None

    arguments: ClassTargets = targets
    value = over_positives(lambda logits, labels: torch.full((1, 2), 8.0), kernel)(torch.zeros(1, 2, 3), arguments)
    assert torch.equal(value, wanted if computes else torch.full((1, 2), 2.0))
