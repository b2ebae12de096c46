"""A module with ``get_extra_state`` puts more than tensors into its state dict."""

NETWORK = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer = nn.Linear(64, classes)

    def forward(self, x):
        return self.layer(x.flatten(1))

    def get_extra_state(self):
        return {"version": 1}

    def set_extra_state(self, state):
        pass

def net(input_shape, num_outputs):
    return Net(num_outputs)
"""


def test_extra_state_is_carried_or_refused(causalprune, folder):
    (folder / "extra.py").write_text(NETWORK)
    result = causalprune("pretrain", "--model", "extra:net", "--epochs", "1", "-q")
    assert result.code == 0 or result.refuses("extra", codes=(2,)), result.error
