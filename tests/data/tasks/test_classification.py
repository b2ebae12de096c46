import torch

from causalprune.data.tasks.classification import Classification


def test_there_is_no_top5_of_five_classes_or_fewer():
    labels, outputs = torch.arange(12) % 5, torch.randn(12, 5)
    task = Classification()
    found = [
        task.summary({name: value.tolist() for name, value in task.sums(o, labels).items()}, 12)
        for o in (outputs, torch.cat([outputs, torch.full((12, 1), -9.0)], 1))
    ]
    assert [f["top5"] for f in found] == [None, 1.0]
