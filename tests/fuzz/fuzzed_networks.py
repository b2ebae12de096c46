"""Source code of random networks: every kind of layer, frozen, tied, unused, noisy, of odd names and types."""

VECTOR = {
    "linear": "nn.Linear({n}, {m})",
    "no bias": "nn.Linear({n}, {m}, bias=False)",
    "weight norm": "nn.utils.parametrizations.weight_norm(nn.Linear({n}, {m}))",
    "spectral norm": "nn.utils.parametrizations.spectral_norm(nn.Linear({n}, {m}))",
    "old weight norm": "nn.utils.weight_norm(nn.Linear({n}, {m}))",
    "pruned": "prune.l1_unstructured(nn.Linear({n}, {m}), 'weight', 0.3)",
    "frozen": "nn.Linear({n}, {m}).requires_grad_(False)",
    "lazy": "nn.LazyLinear({m})",
    "relu": "nn.ReLU()",
    "inplace": "nn.ReLU(inplace=True)",
    "prelu": "nn.PReLU()",
    "rrelu": "nn.RReLU()",
    "gelu": "nn.GELU()",
    "dropout": "nn.Dropout({p})",
    "alpha dropout": "nn.AlphaDropout({p})",
    "layer norm": "nn.LayerNorm({n})",
    "batch norm": "nn.BatchNorm1d({n})",
    "batch norm without weights": "nn.BatchNorm1d({n}, affine=False)",
    "lstm": "Sequence(nn.LSTM({n}, {m}, batch_first=True, num_layers=2, dropout={p}))",
    "gru": "Sequence(nn.GRU({n}, {m}, batch_first=True))",
    "attention": "Attention({n})",
    "encoder": "Sequence(nn.TransformerEncoderLayer({n}, 1, 4, batch_first=True, dropout={p}))",
    "convolution": "Channels(nn.Conv1d(1, 1, 3, padding=1))",
    "transposed": "Channels(nn.ConvTranspose1d(1, 1, 3, padding=1))",
    "group norm": "Channels(nn.GroupNorm(1, 1))",
    "noise": "Noise()",
    "functional dropout": "FunctionalDropout()",
    "tied": "Tied({n})",
    "twice": "Twice({n})",
    "unused": "Unused({n})",
    "scale": "Scale()",
    "empty parameter": "Empty()",
    "extra state": "Extra({n}, {m})",
    "counter": "Counter()",
    "dead": "nn.Sequential(nn.Linear({n}, {m}), Shift(-1000.0), nn.ReLU())",
    "bilinear": "Both(nn.Bilinear({n}, {n}, {m}))",
    "identity": "nn.Identity()",
    "branch": "Branch({n})",
}
IMAGE = {
    "convolution": "nn.Conv2d({c}, {d}, 3, padding=1)",
    "depthwise": "nn.Conv2d({c}, {c}, 3, padding=1, groups={c})",
    "dilated": "nn.Conv2d({c}, {d}, 3, padding=2, dilation=2, bias=False)",
    "transposed": "nn.ConvTranspose2d({c}, {d}, 3, padding=1)",
    "batch norm": "nn.BatchNorm2d({c})",
    "instance norm": "nn.InstanceNorm2d({c}, affine=True)",
    "relu": "nn.ReLU()",
    "dropout": "nn.Dropout2d(0.2)",
    "group norm": "nn.GroupNorm(1, {c})",
    "pixel norm": "nn.Conv2d({c}, {d}, 1)",
}
CHANGES_WIDTH = {
    "linear", "no bias", "weight norm", "spectral norm", "old weight norm", "pruned", "frozen", "lazy", "lstm", "gru",
    "extra state", "dead", "bilinear",
}  # fmt: skip

HEADER = """
import warnings

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune

warnings.simplefilter('ignore')


class Sequence(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        y = self.inner(x[:, None])
        return (y[0] if isinstance(y, tuple) else y)[:, 0]


class Channels(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x[:, None])[:, 0]


class Attention(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.attention = nn.MultiheadAttention(n, 1, dropout=0.2, batch_first=True)

    def forward(self, x):
        x = torch.stack([x, -x], 1)
        return self.attention(x, x, x, need_weights=False)[0].mean(1)


class Noise(nn.Module):
    def forward(self, x):
        return x + 0.1 * torch.randn_like(x) if self.training else x


class FunctionalDropout(nn.Module):
    def forward(self, x):
        return functional.dropout(x, 0.3, self.training)


class Tied(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.a, self.b = nn.Linear(n, n), nn.Linear(n, n)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


class Twice(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.a = nn.Linear(n, n)
        self.again = self.a

    def forward(self, x):
        return self.again(torch.relu(self.a(x)))


class Unused(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.used, self.unused = nn.Linear(n, n), nn.Linear(n, n)

    def forward(self, x):
        return self.used(x)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return x * self.scale


class Empty(nn.Module):
    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.empty(0, 3))

    def forward(self, x):
        return x


class Extra(nn.Linear):
    def get_extra_state(self):
        return {"calls": 1}

    def set_extra_state(self, state):
        pass


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.calls += 1
        return x


class Shift(nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, x):
        return x + self.by


class Both(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x, x)


class Branch(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.parts = nn.ModuleDict({"odd name é": nn.Linear(n, n), "weight": nn.Linear(n, n)})

    def forward(self, x):
        return x + (self.parts["weight"](x) if x.mean() > 0 else self.parts["odd name é"](x))
"""


def network(rng, shape):
    """Source of a module with a factory ``net`` for inputs of this shape."""
    if len(shape) == 1:
        body, width = [], shape[0]
    else:
        body, channels = [], shape[0]
        for _ in range(rng.randint(1, 3)):
            kind = rng.choice([*IMAGE])
            more = rng.choice([1, 2, 4])
            body.append(IMAGE[kind].format(c=channels, d=more))
            channels = more if "{d}" in IMAGE[kind] else channels
        pooled = rng.random() < 0.5
        body += ["nn.AdaptiveAvgPool2d(1)", "nn.Flatten()"] if pooled else ["nn.Flatten()"]
        width = channels if pooled else channels * shape[1] * shape[2]
    for _ in range(rng.randint(0, 3)):
        kind = rng.choice([*VECTOR])
        m = rng.choice([1, 2, 4, 6])
        body.append(VECTOR[kind].format(n=width, m=m, p=rng.choice([0.0, 0.2, 0.5])))
        width = m if kind in CHANGES_WIDTH else width
    head = rng.choice(["nn.Linear({n}, num_outputs)"] * 6 + ["nn.Linear({n}, num_outputs).requires_grad_(False)"])
    body.append(head.format(n=width))
    body = [layer for layer in body if rng.random() > 0.01]
    lines = ",\n        ".join(body)
    after = rng.choice([""] * 20 + [".double()", ".bfloat16()", ".half()", ".requires_grad_(False)", ".eval()"])
    made = f"nn.Sequential(\n        {lines}\n    ){after}"
    signature = rng.choice(["input_shape, num_outputs"] * 3 + ["num_outputs", "num_outputs=2", "**given"])
    first = "    num_outputs = given['num_outputs']\n" if signature == "**given" else ""
    dry = f"    model(torch.zeros(2, {', '.join(map(str, shape))}))\n" if "Lazy" in made and rng.random() < 0.7 else ""
    return f"{HEADER}\n\ndef net({signature}):\n{first}    model = {made}\n{dry}    return model\n"
