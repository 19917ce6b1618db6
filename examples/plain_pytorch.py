"""CARAT in a plain PyTorch loop, with its own losses and random data."""

import torch

from carat import Carat

torch.manual_seed(0)
widths = {"text": 300, "visual": 35, "audio": 74}
model = Carat(widths, ["happy", "sad", "angry", "surprised"]).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

features = {m: torch.randn(8, 10, d) for m, d in widths.items()}  # (samples, time steps, features)
masks = {m: torch.arange(10) < torch.randint(1, 11, (8, 1)) for m in widths}  # True where a step is valid
labels = torch.randint(0, 2, (8, 4)).float()

for step in range(15):
    outputs = model(features, masks)
    losses = model.losses(outputs, labels)
    optimizer.zero_grad()
    losses["total"].backward()
    optimizer.step()
    model.update_after_step(outputs, labels)  # prototypes and memory bank
    print(f"step {step}: loss {losses['total'].item():.3f}, aggregate {losses['aggregate'].item():.3f}")

with torch.no_grad():
    print(model.eval().score(features, masks).scores)  # (samples, labels), in [0, 1]
