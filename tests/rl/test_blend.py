import pytest
import torch
from torch import nn

from rl.worker import blend


@pytest.mark.parametrize(("share", "expected"), [(0.0, 3.0), (0.25, 2.5), (1.0, 1.0)])
def test_the_published_network_lies_on_the_way_back_to_the_start(share, expected):
    tuned, start = nn.Linear(2, 2), nn.Linear(2, 2)
    for network, value in ((tuned, 3.0), (start, 1.0)):
        for weight in network.parameters():
            nn.init.constant_(weight, value)
    blend(tuned, start, share)
    assert all(torch.equal(weight, torch.full_like(weight, expected)) for weight in tuned.parameters())
    assert all(torch.equal(weight, torch.ones_like(weight)) for weight in start.parameters())
