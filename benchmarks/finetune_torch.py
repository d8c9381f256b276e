"""The steps of fine-tuning as one would write them in PyTorch: `transformers` backbones, losses over whole matrices.

Images are random tensors: augmentation is left out, as PyTorch's runs in the loader's processes. Optimizers have one
group of parameters.
"""

import copy
import functools
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.pytorch_zoo import plain_model
from benchmarks.step_torch import backbone_of, freed, timed

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class GeM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.clamp(min=1e-6).pow(self.p).mean((2, 3)).pow(1 / self.p)


def triplet(features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Batch-hard, with a soft margin."""
    distances, same = torch.cdist(features, features), labels[:, None] == labels
    furthest = distances.masked_fill(~same, -torch.inf).amax(1)
    nearest = distances.masked_fill(same, torch.inf).amin(1)
    return F.softplus(furthest - nearest).mean()


class Supervised(nn.Module):
    """Identity loss on the BNNeck, triplet loss before it."""

    def __init__(self, name: str, size: tuple[int, int], identities: int):
        super().__init__()
        self.backbone, dim, self.options = backbone_of(name, size)
        self.neck, self.classifier = nn.BatchNorm1d(dim), nn.Linear(dim, identities, bias=False)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        features = self.backbone(images, **self.options).pooler_output.flatten(1).float()
        logits = self.classifier(self.neck(features))
        return F.cross_entropy(logits.float(), labels) + triplet(features, labels)


class Head(nn.Module):
    def __init__(self, dim: int, identities: int):
        super().__init__()
        self.pool, self.reduction, self.norm = GeM(), nn.Conv2d(dim, 256, 1, bias=False), nn.BatchNorm2d(256)
        self.weight = nn.Parameter(0.01 * torch.randn(identities, 256))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.norm(self.reduction(self.pool(maps)[:, :, None, None])).flatten(1)

    def loss(self, embedding: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Circle softmax with smoothed labels."""
        cosine = F.normalize(embedding.float()) @ F.normalize(self.weight).T
        constant = cosine.detach()
        positive = (1.35 - constant).clamp(min=0) * (cosine - 0.65)
        negative = (constant + 0.35).clamp(min=0) * (cosine - 0.35)
        is_label = F.one_hot(labels, len(self.weight)).bool()
        return F.cross_entropy(64 * torch.where(is_label, positive, negative), labels, label_smoothing=0.1)


class MGN(nn.Module):
    """Three branches behind the first block of stage 3, eight heads, five triplet losses."""

    def __init__(self, name: str, size: tuple[int, int], identities: int):
        super().__init__()
        resnet = plain_model(name.removesuffix("_ibn"), size)
        one, two, three, four = resnet.encoder.stages
        first, *rest = three.layers
        dim = resnet.config.hidden_sizes[-1]
        self.shared = nn.Sequential(resnet.embedder, one, two, first)
        branch = nn.Sequential(*rest, four, nn.BatchNorm2d(dim))
        self.branches = nn.ModuleList(copy.deepcopy(branch) for _ in range(3))
        self.heads = nn.ModuleList(nn.ModuleList(Head(dim, identities) for _ in range(n)) for n in (1, 3, 4))

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        shared, losses, triplets = self.shared(images), [], []
        for stripes, (branch, heads) in enumerate(zip(self.branches, self.heads), start=1):
            maps = branch(shared)
            parts = [maps, *(maps.split(-(-maps.shape[2] // stripes), 2) if stripes > 1 else ())]
            embeddings = [head(part) for head, part in zip(heads, parts)]
            losses += [head.loss(x, labels) for head, x in zip(heads, embeddings)]
            joined = [embeddings[0], *([torch.cat(embeddings[1:], 1)] if stripes > 1 else [])]
            triplets += [triplet(x.float(), labels) for x in joined]
        return torch.stack(losses).mean() + torch.stack(triplets).mean()


class ClusterContrast(nn.Module):
    """Contrast with the centroids of clusters; the hardest image of each moves its centroid."""

    def __init__(self, name: str, size: tuple[int, int], identities: int):
        super().__init__()
        self.backbone, dim, self.options = backbone_of(name, size)
        self.pool = GeM() if name.startswith("resnet") else None
        self.norm = nn.BatchNorm1d(dim)
        self.register_buffer("centroids", F.normalize(torch.randn(identities, dim)))

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        output = self.backbone(images, **self.options)
        pooled = self.pool(output.last_hidden_state) if self.pool else output.pooler_output.flatten(1)
        features = F.normalize(self.norm(pooled.float()))
        self.seen = features.detach(), labels
        return F.cross_entropy(features @ self.centroids.T / 0.05, labels)

    @torch.no_grad()
    def update_memory(self) -> None:
        features, labels = self.seen
        for label in labels.unique():
            own = features[labels == label]
            hardest = own[(own @ self.centroids[label]).argmin()]
            self.centroids[label] = F.normalize(0.2 * self.centroids[label] + 0.8 * hardest, dim=0)


METHODS = {"supervised": Supervised, "mgn": MGN, "cluster_contrast": ClusterContrast}


def torch_seconds(
    method: str, model: str, batch: int, size: tuple[int, int], *, per_identity: int, identities: int, repeats: int
) -> dict[str, float | str]:
    """The shortest seconds of a step: eager, and with `torch.compile` or why that does not work here."""
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def measure() -> dict[str, float | str]:
        network = METHODS[method](model, size, identities).to(device)
        images = torch.randn(batch, 3, *size, device=device)
        labels = torch.arange(batch, device=device) // per_identity
        rate = dict(lr=3.5e-4, weight_decay=5e-4)
        adam = method == "mgn"
        optimizer = torch.optim.Adam(network.parameters(), **rate) if adam else torch.optim.SGD(
            network.parameters(), momentum=0.9, **rate
        )  # fmt: skip

        def step(forward: Loss) -> None:
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                loss = forward(images, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if isinstance(network, ClusterContrast):
                network.update_memory()

        return timed(lambda: step(network), lambda: functools.partial(step, torch.compile(network)), repeats)

    return freed(measure)
