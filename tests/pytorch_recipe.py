"""The released recipe in PyTorch and float64: a ResNet-IBN, the head, the loss as a loop over pairs, AdamW."""

import copy
import itertools

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from cion_jax.models.resnet import Settings


class IBN(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.half = width // 2
        self.IN = nn.InstanceNorm2d(self.half, affine=True)
        self.BN = nn.BatchNorm2d(width - self.half)

    def forward(self, x):
        return torch.cat([self.IN(x[:, : self.half]), self.BN(x[:, self.half :])], 1)


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride, ibn):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = IBN(width) if ibn else nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride > 1 or inputs != 4 * width:
            projection = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(4 * width))

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(nn.Module):
    def __init__(self, settings: Settings):
        super().__init__()
        inputs = settings.widths[0]
        self.conv1 = nn.Conv2d(3, inputs, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        for stage, stride in enumerate((1, 2, 2, settings.last_stride)):
            blocks = []
            for index in range(settings.depths[stage]):
                width, ibn = settings.widths[stage], settings.ibn and stage < 3
                blocks.append(Bottleneck(inputs, width, 1 if index else stride, ibn))
                inputs = 4 * width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))


class Head(nn.Module):
    def __init__(self, dim, hidden, bottleneck, prototypes):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.last_layer = nn.ParameterDict({"weight_v": torch.zeros(prototypes, bottleneck)})

    def forward(self, x):
        return F.normalize(self.mlp(x), dim=-1) @ F.normalize(self.last_layer["weight_v"], dim=-1).T


class Network(nn.Module):
    def __init__(self, backbone, head):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, *resolutions):
        """Logits `[views, b, prototypes]` of `[views, b, 3, h, w]`: one pass for each resolution."""
        batch = resolutions[0].shape[1]
        embeddings = torch.cat([self.backbone(x.flatten(0, 1)) for x in resolutions])
        return self.head(embeddings).unflatten(0, (-1, batch))


def released_loss(student, teacher, center, k):
    """As the release computes it: tests/reference/README.md, "Loss cases"."""
    log_p = F.log_softmax(student / 0.1, -1).unflatten(1, (-1, k))
    q = F.softmax((teacher - center) / 0.04, -1).unflatten(1, (-1, k))

    def mean(a, i, v, j):
        return -(q[a, :, i] * log_p[v, :, j]).sum(-1).mean()

    losses = []
    for a, v in itertools.product(range(len(q)), range(len(log_p))):
        if a != v:
            same = sum(mean(a, i, v, i) for i in range(k)) / k
            cross = [mean(a, i, v, j) for i, j in itertools.permutations(range(k), 2)]
            losses.append((same + sum(cross)) / (1 + len(cross)))
    return sum(losses) / len(losses)


def cosine(start, end, steps):
    return end + (start - end) * (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2


def train(student, batches, images_per_identity, *, steps_per_epoch, total_steps):
    """Losses of some first steps, one for each of `batches` (views `[v, b, 3, h, w]`, a tensor for each resolution).

    What is not an argument is as tests/reference/README.md, "Trajectory", has it. Changes `student`; returns the
    losses, the teacher and the center.
    """
    teacher = copy.deepcopy(student).requires_grad_(False)
    regularised = [p for p in student.parameters() if p.ndim > 1]
    others = [p for p in student.parameters() if p.ndim == 1]
    groups = [{"params": regularised}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=0.0, betas=(0.9, 0.999), eps=1e-8)
    warmup = np.linspace(0, 1e-3, steps_per_epoch)
    rates = np.concatenate([warmup, cosine(1e-3, 1e-6, total_steps - steps_per_epoch)])
    decays, momenta = cosine(0.04, 0.4, total_steps), cosine(0.996, 1.0, total_steps)
    center, losses = 0, []
    for step, (views, k) in enumerate(zip(batches, images_per_identity)):
        for group in optimizer.param_groups:
            group["lr"] = rates[step]
        optimizer.param_groups[0]["weight_decay"] = decays[step]
        with torch.no_grad():
            targets = teacher(views[0])
        loss = released_loss(student(*views), targets, center, k)
        optimizer.zero_grad()
        loss.backward()
        for parameter in student.parameters():
            parameter.grad *= min(3.0 / (parameter.grad.norm() + 1e-6), 1.0)
        if step < steps_per_epoch:
            student.head.last_layer["weight_v"].grad = None
        optimizer.step()
        with torch.no_grad():
            for ours, theirs in zip(student.parameters(), teacher.parameters()):
                theirs.mul_(momenta[step]).add_((1 - momenta[step]) * ours)
        center = 0.9 * center + 0.1 * targets.mean((0, 1))
        losses.append(loss.item())
    return losses, teacher, center
