"""The training step as one would write it in PyTorch: `transformers` backbones, DINO's head, logits, loops over views.

Views are random tensors: cropping and colours are left out, as PyTorch's run in the loader's processes.
"""

import copy
import gc
import time
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.pytorch_zoo import plain_model
from cion_jax.distillation.augmentation import Augmentation


class Student(nn.Module):
    """Backbone and head: images `[n, 3, h, w]` to logits `[n, prototypes]`."""

    def __init__(self, name: str, size: tuple[int, int], prototypes: int):
        super().__init__()
        self.backbone, dim, self.positions = backbone_of(name, size)
        self.mlp = nn.Sequential(
            nn.Linear(dim, 2048), nn.GELU(), nn.Linear(2048, 2048), nn.GELU(), nn.Linear(2048, 256)
        )
        self.last = nn.utils.parametrizations.weight_norm(nn.Linear(256, prototypes, bias=False))
        self.last.parametrizations.weight.original0.requires_grad_(False)

    def forward(self, *resolutions: torch.Tensor) -> torch.Tensor:
        embeddings = torch.cat([self.backbone(x, **self.positions).pooler_output.flatten(1) for x in resolutions])
        return self.last(nn.functional.normalize(self.mlp(embeddings), dim=-1))


def backbone_of(name: str, size: tuple[int, int]) -> tuple[nn.Module, int, dict]:
    """A model of `transformers` with the arithmetic of ours; Instance-Batch Normalisation is plain BatchNorm."""
    model = plain_model(name.removesuffix("_ibn"), size)
    if model is None or name.startswith("swin"):  # which needs maps of another size for local views
        raise ValueError(f"no PyTorch model of the size of {name} is known here; leave it out with --notorch")
    if not name.startswith("vit"):
        return model, model.config.hidden_sizes[-1], {}
    model.pooler = _ClassToken()
    model.embeddings.interpolate_pos_encoding = _positions(model.embeddings.position_embeddings, size)
    return model, model.config.hidden_size, {"interpolate_pos_encoding": True}


class _ClassToken(nn.Module):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 0]


def _positions(embedding: torch.Tensor, size: tuple[int, int]):
    """Position embeddings of maps of any size; those of `transformers` are for square images only."""
    rows, columns = size[0] // 16, size[1] // 16

    def resized(embeddings: torch.Tensor, height: int, width: int) -> torch.Tensor:
        grid = embedding[:, 1:].unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
        grid = nn.functional.interpolate(grid, (height // 16, width // 16), mode="bicubic")
        return torch.cat([embedding[:, :1], grid.flatten(2).mT], 1)

    return resized


def paper_loss(student: torch.Tensor, teacher: torch.Tensor, center: torch.Tensor, k: int) -> torch.Tensor:
    """Eq. 9 from logits `[views, batch, prototypes]`, pair by pair: image i with those beside it, views in a loop."""
    views, batch, count = student.shape
    log_p = torch.log_softmax(student.float() / 0.1, -1).view(views, -1, k, count)
    q = torch.softmax((teacher.float() - center) / 0.04, -1).view(2, -1, k, count)
    total, terms = student.new_zeros([], dtype=torch.float32), 0
    for a in range(2):
        for v in range(views):
            for i in range(k):
                for j in range(k):
                    if (a, i) != (v, j):
                        total -= (q[a, :, i] * log_p[v, :, j]).sum()
                        terms += batch // k
    return total / terms


def torch_seconds(model: str, batch: int, prototypes: int, views: Augmentation, repeats: int, k: int = 2) -> dict:
    """As `timed`; no memory stays taken."""
    return freed(lambda: _measure(model, batch, prototypes, views, repeats, k))


def freed(measure: Callable[[], dict]) -> dict:
    """The result of `measure`, after which PyTorch gives its memory back."""
    seconds = measure()
    gc.collect()
    torch.cuda.empty_cache()  # does nothing without a GPU
    return seconds


def timed(eager: Callable[[], None], make_compiled: Callable[[], Callable[[], None]], repeats: int) -> dict:
    """The shortest seconds of a step: eager, and with `torch.compile` or why that does not work here."""
    seconds: dict[str, float | str] = {"eager": _seconds(eager, repeats)}
    try:
        seconds["torch.compile"] = _seconds(make_compiled(), repeats)
    except RuntimeError as error:  # it needs a compiler, and fails in many ways
        seconds["torch.compile"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return seconds


def _measure(model: str, batch: int, prototypes: int, views: Augmentation, repeats: int, k: int) -> dict:
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    student = Student(model, views.global_size, prototypes).to(device)
    teacher = copy.deepcopy(student).requires_grad_(False)
    trained = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.04)
    whole = torch.randn(2 * batch, 3, *views.global_size, device=device)
    small = torch.randn(views.local_views * batch, 3, *views.local_size, device=device)
    crops = (whole, small) if views.local_views else (whole,)
    center = torch.zeros(1, prototypes, device=device)

    def step(of_student: nn.Module, of_teacher: nn.Module) -> None:
        with torch.autocast(device, torch.bfloat16, enabled=cuda):
            with torch.no_grad():
                targets = of_teacher(whole).view(2, batch, -1)
            logits = of_student(*crops).view(-1, batch, prototypes)
        optimizer.zero_grad()
        paper_loss(logits, targets, center, k).backward()
        for parameter in trained:
            torch.nn.utils.clip_grad_norm_(parameter, 3.0)
        optimizer.step()
        with torch.no_grad():
            for ours, theirs in zip(student.parameters(), teacher.parameters()):
                theirs.mul_(0.996).add_(ours, alpha=0.004)
            center.mul_(0.9).add_(targets.float().mean((0, 1)), alpha=0.1)

    return timed(lambda: step(student, teacher), lambda: _compiled_step(step, student, teacher), repeats)


def _compiled_step(step, student: nn.Module, teacher: nn.Module):
    of_student, of_teacher = torch.compile(student), torch.compile(teacher)
    return lambda: step(of_student, of_teacher)


def _seconds(step, repeats: int) -> float:
    shortest = float("inf")
    for index in range(repeats + 1):
        started = time.perf_counter()
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if index:  # the first compiles
            shortest = min(shortest, time.perf_counter() - started)
    return shortest
