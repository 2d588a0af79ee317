"""PyTorch models for tables, exported by torch.onnx with the exporter that needs no further packages."""

import io

import numpy as np
import onnx
import torch
from torch import nn

import data
import zoo
from zoo import Made

PRODUCER = f"PyTorch {torch.__version__.split('+')[0]}"
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

CITIES, PLANS = 7, 4


class Embedded(nn.Module):
    """Numbers beside two embedded categories, batch normalisation, three layers."""

    def __init__(self):
        super().__init__()
        self.city = nn.Embedding(CITIES, 4)
        self.plan = nn.Embedding(PLANS, 3)
        self.body = nn.Sequential(
            nn.Linear(8 + 7, 24),
            nn.BatchNorm1d(24),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(24, 12),
            nn.GELU(),
            nn.Linear(12, 3),
        )

    def forward(self, numbers, city, plan):
        joined = torch.cat([numbers, self.city(city), self.plan(plan)], dim=1)
        return torch.softmax(self.body(joined), dim=1)


class Attention(nn.Module):
    """Self-attention between columns, written out in matrix products."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.width = heads, width
        self.queries, self.keys, self.values = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def split(self, x):
        return x.reshape(-1, x.shape[1], self.heads, self.width // self.heads).transpose(1, 2)

    def forward(self, x):
        scores = self.split(self.queries(x)) @ self.split(self.keys(x)).transpose(2, 3)
        weights = torch.softmax(scores / (self.width // self.heads) ** 0.5, dim=-1)
        mixed = (weights @ self.split(self.values(x))).transpose(1, 2)
        return self.out(mixed.reshape(-1, x.shape[1], self.width))


class Transformer(nn.Module):
    """A small FT-Transformer: every column a token, one token for the answer."""

    def __init__(self, columns=8, width=16, heads=2, blocks=2):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(columns, width) * 0.3)
        self.bias = nn.Parameter(torch.randn(columns, width) * 0.3)
        self.answer = nn.Parameter(torch.randn(1, 1, width))
        self.attention = nn.ModuleList(Attention(width, heads) for _ in range(blocks))
        self.before = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.between = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.forward_part = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, width)) for _ in range(blocks)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, numbers):
        tokens = numbers.unsqueeze(-1) * self.weight + self.bias
        tokens = torch.cat([self.answer.expand(numbers.shape[0], -1, -1), tokens], dim=1)
        for attention, before, between, feed in zip(self.attention, self.before, self.between, self.forward_part):
            tokens = tokens + attention(before(tokens))
            tokens = tokens + feed(between(tokens))
        return torch.sigmoid(self.head(tokens[:, 0]))


class ResidualNetwork(nn.Module):
    """Residual blocks with the less usual activations."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), activation)
            for activation in (nn.SiLU(), nn.LeakyReLU(0.1), nn.ELU(), nn.Softplus(), nn.Hardswish(), nn.Mish())
        )
        self.mean, self.spread = nn.Linear(16, 1), nn.Linear(16, 1)

    def forward(self, numbers):
        x = self.first(torch.nan_to_num(numbers, nan=0.0).clamp(-4.0, 4.0))
        for block in self.blocks:
            x = x + block(x)
        return self.mean(x).squeeze(1), torch.exp(0.2 * self.spread(x)).squeeze(1)


def scaled_numbers(rows, seed):
    table = data.numbers(rows, seed=seed)
    return ((table - [0, 0, 0, 0, 1.6, 3, 9.5, 0.5]) / [1, 1, 1, 1, 2, 1.7, 5.8, 0.5]).astype(np.float32)


def network(name, build, inputs, outputs, estimator, opset=17, no_reference=""):
    """Registers a network; its weights are seeded and warmed by some steps towards random answers."""

    def make():
        torch.manual_seed(0)
        model = build()
        train = [torch.from_numpy(v) for v in inputs(256, 7).values()]
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        goal = torch.from_numpy(np.tanh(data.score(data.numbers(256, seed=7))).astype(np.float32))
        for _ in range(30):
            optimizer.zero_grad()
            answer = model(*train)
            first = answer[0] if isinstance(answer, tuple) else answer[:, 0]
            loss = ((first - goal) ** 2).mean()
            loss.backward()
            optimizer.step()
        model.eval()
        rows = inputs(zoo.ROWS, 107)
        example = tuple(torch.from_numpy(v) for v in rows.values())
        buffer = io.BytesIO()
        torch.onnx.export(
            model,
            example,
            buffer,
            input_names=list(rows),
            output_names=list(outputs),
            dynamic_axes={n: {0: "batch"} for n in list(rows) + list(outputs)},
            opset_version=opset,
            dynamo=False,
        )
        exported = onnx.load_from_string(buffer.getvalue())
        with torch.no_grad():
            answer = model(*example)
        answer = answer if isinstance(answer, tuple) else (answer,)
        said = {k: v.numpy() for k, v in zip(outputs, answer)}
        return Made(exported, rows, said, no_reference=no_reference)

    zoo.register(name, PRODUCER, estimator, "other", make)


def with_categories(rows, seed):
    rng = np.random.default_rng(seed)
    return {
        "numbers": scaled_numbers(rows, seed),
        "city": rng.integers(0, CITIES, rows),
        "plan": rng.integers(0, PLANS, rows),
    }


def only_numbers(rows, seed):
    return {"numbers": scaled_numbers(rows, seed)}


def numbers_with_gaps(rows, seed):
    table = scaled_numbers(rows, seed)
    table[3, 2] = np.nan
    return {"numbers": table}


network(
    "torch_embeddings", Embedded, with_categories, ["probabilities"], "MLP with two embeddings and batch normalisation"
)
network("torch_transformer", Transformer, only_numbers, ["probability"], "FT-Transformer, two blocks")
network(
    "torch_residual", ResidualNetwork, numbers_with_gaps, ["mean", "spread"], "residual MLP, mean and spread", opset=18
)
network(
    "torch_embeddings_opset11",
    Embedded,
    with_categories,
    ["probabilities"],
    "MLP with two embeddings, opset 11",
    opset=11,
    no_reference="it reads old definitions as new ones",
)
network("torch_transformer_opset13", Transformer, only_numbers, ["probability"], "FT-Transformer, opset 13", opset=13)
