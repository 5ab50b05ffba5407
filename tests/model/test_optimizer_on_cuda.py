"""LAMB and Muon on a CUDA device in host memory."""

import pytest

from tests.fake_cuda.library import missing
from tests.fake_cuda.runs import on_devices

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@on_devices()
def test_lamb_and_muon_update_as_on_a_cpu_and_the_host_does_not_wait():
    import torch

    from model.optimizer import build_optimizer, set_learning_rate
    from tests.fake_cuda.library import load
    from tests.model.small_model import random_model

    # Muon orthogonalises in 16 bits on CUDA only.
    for name, bound in (("lamb", 1e-5), ("muon", 2e-2)):
        host, device = random_model(), random_model().cuda()
        optimizers = [build_optimizer(model, 0.01, name) for model in (host, device)]
        generator = torch.Generator().manual_seed(1)
        for _ in range(3):
            before = [parameter.detach().clone() for parameter in host.parameters()]
            for ours, theirs in zip(host.parameters(), device.parameters()):
                ours.grad = torch.randn(ours.shape, generator=generator)
                theirs.data, theirs.grad = ours.data.cuda(), ours.grad.cuda()
            waits = load().fake_cuda_num_synchronizations()
            for optimizer in optimizers:
                set_learning_rate(optimizer, 0.01)
                optimizer.step()
            assert load().fake_cuda_num_synchronizations() == waits
            for ours, theirs, old in zip(host.parameters(), device.parameters(), before):
                assert (theirs.cpu() - ours).norm() <= bound * (ours - old).norm()
