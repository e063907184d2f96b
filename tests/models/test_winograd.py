import pytest
import torch

from audiopipe.models.winograd import TimeWinograd


@pytest.mark.parametrize(("channels", "outputs", "rows"), [(1, 1, 4), (3, 5, 8), (64, 32, 12)])
def test_equals_a_direct_convolution_in_float64(channels, outputs, rows):
    generator = torch.Generator().manual_seed(channels)
    weight = torch.randn(outputs, channels, 3, 3, generator=generator) / channels**0.5
    bias = torch.randn(outputs, generator=generator)
    x = torch.randn(rows + 2, 11, channels, generator=generator)
    out = TimeWinograd(weight, bias)(x, torch.empty(rows, 11, outputs))
    image = x.permute(2, 0, 1)[None].double()
    expected = torch.conv2d(image, weight.double(), bias.double(), padding=(0, 1))[0].permute(1, 2, 0)
    torch.testing.assert_close(out.double(), expected, atol=3e-5, rtol=1e-5)
