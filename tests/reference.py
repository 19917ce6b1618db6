"""CARAT from the label-specific features on, with its objective and updates, straight from the equations.

Plain, slow, one sample, modality and label at a time; the fast code is tested against it. Written from the
definitions of preset `paper`, with absent modalities as docs/concepts/method.md says.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

MOMENTUM, TEMPERATURE = 0.99, 0.07
WEIGHTS = {
    "original": 0.01,
    "alpha": 0.1,
    "beta": 1.0,
    "contrast": 1.0,
    "mse_reconstruction": 1.0,
    "mse_alpha": 1.0,
    "mse_beta": 0.0,
    "aggregate": 1.0,
    "shuffled": 0.1,
}


@dataclass
class Memory:
    """What is learnt without gradient."""

    prototypes: dict[tuple[int, int, bool], Tensor]
    """(P,) by modality, label and whether the label is present."""
    queue: list[tuple[int, Tensor]] = field(default_factory=list)
    """Class and latent, the oldest first."""


class Reference:
    """The equations, on weights named as the network's.

    Args:
        weights: state dictionary of `carat.models.carat.network.Carat`.
        u: original features (B, M, L, D).
        presence: (B, M).
        labels: (B, L), NaN where unknown.
        targets: (B, L) in [0, 1], NaN where unknown; the labels by default.
    """

    def __init__(
        self,
        weights: dict[str, Tensor],
        u: Tensor,
        modality_mask: Tensor,
        labels: Tensor,
        targets: Tensor | None = None,
    ) -> None:
        self.w, self.u, self.modality_mask, self.labels = weights, u, modality_mask, labels
        self.targets = labels if targets is None else targets
        self.batch, self.modalities, self.size, _ = u.shape

    def encode(self, m: int, feature: Tensor) -> Tensor:
        """En_m: (D,) → (P,)."""
        return self._mlp("latent.encoder", m, feature)

    def decode(self, m: int, latent: Tensor) -> Tensor:
        """De_m: (P,) → (D,)."""
        return self._mlp("latent.decoder", m, latent)

    def _mlp(self, name: str, m: int, x: Tensor) -> Tensor:
        middle = x @ self.w[f"{name}.first.weight"][m] + self.w[f"{name}.first.bias"][m]
        middle = torch.where(middle > 0, middle, 0)
        return middle @ self.w[f"{name}.second.weight"][m] + self.w[f"{name}.second.bias"][m]

    def rebuild(self, m: int, parts: list[Tensor]) -> Tensor:
        """W_m [parts in the order of the modalities]."""
        weight, bias = (self.w[f"reconstruction.rebuild.{kind}"][m] for kind in ("weight", "bias"))
        return torch.cat(parts) @ weight + bias

    def joint(self, features: list[Tensor]) -> Tensor:
        """g: features (D,) of all labels → logits (L,)."""
        x = torch.cat(features)
        middle = self.w["aggregation.first.weight"] @ x + self.w["aggregation.first.bias"]
        middle = torch.where(middle > 0, middle, 0)
        return self.w["aggregation.second.weight"] @ middle + self.w["aggregation.second.bias"]

    def forward(self, memory: Memory) -> None:
        """All levels in training mode: `levels[k][b][m][l]` (D,), `latents` alike, `decoded[b][m][l]`."""
        self.decoded: list[list[list[Tensor]]] = []
        self.levels: list[list[list[list[Tensor]]]] = [[], [], []]
        for b in range(self.batch):
            per_label = [self._one(b, label, memory) for label in range(self.size)]
            for store, what in zip([self.decoded, *self.levels], range(4), strict=True):
                store.append(
                    [[per_label[n][what][m] for n in range(self.size)] for m in range(self.modalities)]
                )
        self.latents = [
            [[[self.encode(m, x) for x in row] for m, row in enumerate(sample)] for sample in level]
            for level in self.levels
        ]

    def _one(self, b: int, label: int, memory: Memory) -> tuple[list[Tensor], ...]:
        """Decoded, original, α and β features by modality, of one sample and label."""
        own, stand_in = [], []
        for m in range(self.modalities):
            positive, negative = (memory.prototypes[m, label, sign] for sign in (True, False))
            if self.modality_mask[b, m]:
                z = self.encode(m, self.u[b, m, label])
                unit = z / z.norm()
                up, down = (unit @ positive).exp(), (unit @ negative).exp()
                mixture = (up * positive + down * negative) / (up + down)
                own.append(self.decode(m, z))
            else:
                mixture = (positive + negative) / 2
                own.append(self.decode(m, mixture))
            stand_in.append(self.decode(m, mixture))
        alpha = []
        for target in range(self.modalities):
            sources = [
                stand_in[m] if m == target and self.modalities > 1 else own[m] for m in range(self.modalities)
            ]
            alpha.append(self.rebuild(target, sources))
        beta = [self.rebuild(target, alpha) for target in range(self.modalities)]
        return own, list(self.u[b, :, label]), alpha, beta

    def scores(self) -> Tensor:
        """(B, L)."""
        rows = []
        for b in range(self.batch):
            there = [m for m in range(self.modalities) if self.modality_mask[b, m]]
            joint = torch.stack([sigmoid(self.joint(self.levels[2][b][m])) for m in there]).mean(0)
            rows.append((sigmoid(self._pooled(2, b)) + joint) / 2)
        return torch.stack(rows)

    def _pooled(self, level: int, b: int) -> Tensor:
        """max over the present modalities of ⟨feature, w⟩, by label."""
        best = []
        for label in range(self.size):
            logits = [
                self.levels[level][b][m][label] @ self.w["classifier"][m, label]
                for m in range(self.modalities)
                if self.modality_mask[b, m]
            ]
            best.append(torch.stack(logits).max())
        return torch.stack(best)

    def losses(self, memory: Memory, samples: Tensor, modalities: Tensor) -> dict[str, Tensor]:
        """Every term and the total; the shuffle's indices (B, M, L) are given."""
        terms = {
            name: self._mean([x for b in range(self.batch) for x in self._errors(self._pooled(k, b), b)])
            for k, name in enumerate(("original", "alpha", "beta"))
        }
        terms["contrast"] = self._contrast(memory)
        for name, level in (
            ("mse_reconstruction", self.decoded),
            ("mse_alpha", self.levels[1]),
            ("mse_beta", self.levels[2]),
        ):
            terms[name] = self._distance(level)
        targets = self.targets[:, None].expand(-1, self.modalities, -1)
        terms["aggregate"] = self._joint_loss(self.levels[2], targets)
        beta = torch.stack([torch.stack([torch.stack(row) for row in sample]) for sample in self.levels[2]])
        beta, targets = beta.clone(), targets.clone()
        for values in (beta, targets):  # over samples first, then over modalities
            for index, along_samples in ((samples, True), (modalities, False)):
                before = values.clone()
                for b in range(self.batch):
                    for m in range(self.modalities):
                        for label in range(self.size):
                            i = int(index[b, m, label])
                            source = (i, m, label) if along_samples else (b, i, label)
                            values[b, m, label] = before[source]
        terms["shuffled"] = self._joint_loss([[list(row) for row in sample] for sample in beta], targets)
        return terms | {"total": sum((WEIGHTS[name] * terms[name] for name in terms), torch.zeros(()))}

    def _joint_loss(self, features: list[list[list[Tensor]]], targets: Tensor) -> Tensor:
        losses = [
            x
            for b in range(self.batch)
            for m in range(self.modalities)
            if self.modality_mask[b, m]
            for x in cross_entropies(self.joint(features[b][m]), targets[b, m])
        ]
        return self._mean(losses)

    def _errors(self, logits: Tensor, b: int) -> list[Tensor]:
        return cross_entropies(logits, self.targets[b])

    def _mean(self, losses: list[Tensor]) -> Tensor:
        return torch.stack(losses).mean() if losses else self.u.sum() * 0

    def _distance(self, level: list[list[list[Tensor]]]) -> Tensor:
        total = self.u.sum() * 0
        for m in range(self.modalities):
            errors = [
                (level[b][m][label] - self.u[b, m, label]).square().mean()
                for b in range(self.batch)
                for label in range(self.size)
                if self.modality_mask[b, m]
            ]
            total = total + (torch.stack(errors).mean() if errors else 0)
        return total

    def rows(self) -> list[tuple[int, Tensor]]:
        """Class and unit latent of every row: by sample, level, modality, label."""
        found = []
        for b in range(self.batch):
            for level in self.latents:
                for m in range(self.modalities):
                    for label in range(self.size):
                        if self.modality_mask[b, m] and not self.labels[b, label].isnan():
                            kind = label + self.size * (2 * m + (0 if self.labels[b, label] else 1))
                            found.append((kind, level[b][m][label] / level[b][m][label].norm()))
        return found

    def _contrast(self, memory: Memory) -> Tensor:
        batch = self.rows()
        everything = [*batch, *memory.queue]
        losses = []
        for i, (kind, row) in enumerate(batch):
            others = [x for j, x in enumerate(everything) if j != i]
            positives = [other for same, other in others if same == kind]
            if positives:
                denominator = torch.stack([row @ x / TEMPERATURE for _, x in others]).exp().sum()
                logs = [((row @ x / TEMPERATURE).exp() / denominator).log() for x in positives]
                losses.append(-torch.stack(logs).mean())
        return self._mean(losses)

    def update(self, memory: Memory, queue_size: int) -> None:
        """Prototypes, sample by sample, and the queue."""
        for b in range(self.batch):
            for m in range(self.modalities):
                for label in range(self.size):
                    if self.modality_mask[b, m] and not self.labels[b, label].isnan():
                        z = self.latents[0][b][m][label].detach()
                        key = (m, label, bool(self.labels[b, label]))
                        memory.prototypes[key] = (
                            MOMENTUM * memory.prototypes[key] + (1 - MOMENTUM) * z / z.norm()
                        )
        memory.queue = [*memory.queue, *((kind, row.detach()) for kind, row in self.rows())][-queue_size:]


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e⁻ˣ)."""
    return 1 / (1 + (-x).exp())


def cross_entropies(logits: Tensor, targets: Tensor) -> list[Tensor]:
    """Binary cross-entropy of every known target of one sample's logits (L,)."""
    pairs = [(sigmoid(x), y) for x, y in zip(logits, targets, strict=True) if not y.isnan()]
    return [-y * p.log() - (1 - y) * (1 - p).log() for p, y in pairs]
