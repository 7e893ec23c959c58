"""Structural similarity: hand values, the paper's form, digits, images that are unlike."""

import math
from functools import partial

import pytest
import torch
from torch.nn.functional import avg_pool2d, avg_pool3d

from aptt.audit.ways import in_blocks, plainly
from aptt.core import structure
from aptt.loss import MSSSIMLoss, SSIMLoss, ms_ssim_loss, ssim_loss

SMALL = {"data_range": 1.0, "window_size": 5}
SCALES = {**SMALL, "scale_weight": (0.2, 0.5, 0.3)}


@pytest.fixture(autouse=True, params=[plainly, in_blocks], ids=["plain", "in blocks"])
def _way(request):
    with request.param():
        yield


def _images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _by_windows(x, t, size=5, sigma=1.5, k1=0.01, k2=0.03, scale=1.0):
    """Luminance, and contrast and structure, as Wang et al. 2004 have them, window by window."""
    axes = range(2, x.ndim)
    at = torch.arange(size, dtype=x.dtype) - (size - 1) / 2
    bell = torch.exp(-at.square() / (2 * sigma**2))
    weights = torch.ones((), dtype=x.dtype)
    for _ in axes:
        weights = weights.unsqueeze(-1) * bell
    weights = (weights / weights.sum()).flatten()

    def cut(v):
        for axis in axes:
            v = v.unfold(axis, size, 1)
        return v.flatten(v.ndim - len(axes))

    a, b = cut(x), cut(t)
    mean_a, mean_b = ((v * weights).sum(-1) for v in (a, b))
    a, b = a - mean_a.unsqueeze(-1), b - mean_b.unsqueeze(-1)
    var_a, var_b, cov = ((v * weights).sum(-1) for v in (a * a, b * b, a * b))
    c1, c2 = (k1 * scale) ** 2, (k2 * scale) ** 2
    light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return light, (2 * cov + c2) / (var_a + var_b + c2)


def _ms(x, t, weights):
    value = 1.0
    for i, w in enumerate(weights):
        if i:
            pool = avg_pool2d if x.ndim == 4 else avg_pool3d
            x, t = pool(x, 2), pool(t, 2)
        light, contrast = _by_windows(x, t)
        last = light * contrast if i == len(weights) - 1 else contrast
        value = value * last.flatten(2).mean(2) ** w
    return 1 - value.mean(1)


# ------------------------------------------------------------------------------ closed forms


def test_constants_by_hand():
    # 0.5 against 0.6: luminance (0.6 + 1e-4) / (0.61 + 1e-4), and no contrast
    x, t = torch.full((2, 3, 12, 12), 0.5), torch.full((2, 3, 12, 12), 0.6)
    assert ssim_loss(x, t, data_range=1.0).item() == pytest.approx(1 - 0.98360924, abs=1e-7)
    assert ssim_loss(x, t, data_range=1.0).item() == pytest.approx(0.01 / 0.6101, rel=1e-6)
    two = ms_ssim_loss(x, t, **{**SMALL, "scale_weight": (0.5, 0.5)})
    assert two.item() == pytest.approx(1 - (1 - 0.01 / 0.6101) ** 0.5, rel=1e-6)


def test_an_image_against_its_negative_by_hand():
    # columns 1, -1 under taps 1/4, 1/2, 1/4 about: means 0; S = (c2 - 2) / (c2 + 2)
    row = torch.tensor([1.0, -1.0]).repeat(8)
    x = row.expand(1, 1, 16, 16).contiguous().double()
    sigma = math.sqrt(1 / (2 * math.log(2)))  # of the taps 1/2, 1, 1/2, less their sum
    loss = ssim_loss(x, -x, data_range=2.0, window_size=3, sigma=sigma)
    c2 = 0.06**2
    assert loss.item() == pytest.approx(1 - (c2 - 2) / (c2 + 2), rel=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 13, 9), (1, 2, 8, 7, 6)])
def test_the_papers_form(shape):
    x, t = _images(*shape), _images(*shape, seed=1)
    light, contrast = _by_windows(x, t)
    want = 1 - (light * contrast).flatten(1).mean(1)
    torch.testing.assert_close(ssim_loss(x, t, **SMALL, reduction="none"), want)
    light, contrast = _by_windows(x, t, 3, 0.8, 0.2, 0.1, 4.0)
    want = 1 - (light * contrast).mean()
    found = ssim_loss(x, t, data_range=4.0, window_size=3, sigma=0.8, k1=0.2, k2=0.1)
    torch.testing.assert_close(found, want)


@pytest.mark.parametrize("shape", [(2, 2, 23, 21), (1, 1, 20, 20, 20)])
def test_several_scales_by_the_papers_form(shape):
    t = _images(*shape)
    x = t + 0.1 * _images(*shape, seed=1)
    want = _ms(x, t, SCALES["scale_weight"])
    torch.testing.assert_close(ms_ssim_loss(x, t, **SCALES, reduction="none"), want)
    one = ms_ssim_loss(x, t, **{**SCALES, "scale_weight": (1.0,)})
    single = ssim_loss(x, t, **SMALL, reduction="none")
    if shape[1] == 1:
        torch.testing.assert_close(one, single.mean())


@pytest.mark.parametrize("name", ["SSIM", "MS_SSIM"])
def test_an_accelerator_takes_another_way_to_the_same(name):
    formula = getattr(structure, name)
    x, t = _images(2, 3 * 20 * 21).requires_grad_(), _images(2, 3 * 20 * 21, seed=1)
    options = {"shape": (3, 20, 21), "c": (1e-4, 9e-4)}
    options |= {"weights": (0.5, 0.5)} if name == "MS_SSIM" else {}
    for size in (4, 5):
        one, other = (
            f.result(x, (), t, window=(size, 1.2), **options) for f in (formula, formula.in_one)
        )
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)
        slopes = [torch.autograd.grad(v.sum(), x)[0] for v in (one, other)]
        torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("way", ["by shifts", "by convolution"])
@pytest.mark.parametrize("sigma", [1e-30, torch.finfo(torch.float32).tiny])
def test_of_an_even_window_that_is_narrow_the_two_taps_in_the_middle_are_left(sigma, way):
    formula = structure.SSIM if way == "by shifts" else structure.SSIM.in_one
    x, t = _images(2, 3, 12, 13), _images(2, 3, 12, 13, seed=1)

    def loss(x, t, *window):
        sides = (x.flatten(1), (), t.flatten(1))
        return formula.result(*sides, shape=x.shape[1:], window=window, c=(1e-4, 9e-4))

    inner = [v[:, :, 1:-1, 1:-1] for v in (x, t)]
    torch.testing.assert_close(loss(x, t, 4, sigma), loss(*inner, 2, 1.0), rtol=1e-12, atol=0)
    torch.testing.assert_close(loss(x, t, 2, sigma), loss(x, t, 2, 1.0), rtol=1e-12, atol=0)


# ------------------------------------------------------------------------------ digits


@pytest.mark.parametrize("level", [254.7, 40000.3])
def test_bright_flat_images_keep_their_digits(level):
    # the difference of squares, in float32: a loss of 0.113 and 1664 for equal images
    x = torch.full((1, 1, 16, 16), level)
    assert ssim_loss(x, x.clone(), data_range=255.0) == 0
    near = x + 0.5
    off = (near.double() - x.double()).square()[0, 0, 0, 0].item()
    below = near.double()[0, 0, 0, 0] ** 2 + x.double()[0, 0, 0, 0] ** 2 + 2.55**2
    found = ssim_loss(near, x, data_range=255.0).item()
    assert found == pytest.approx(off / below.item(), rel=1e-6)


@pytest.mark.parametrize("noise", [1e-3, 1e-5])
@pytest.mark.parametrize("loss", [partial(ssim_loss, **SMALL), partial(ms_ssim_loss, **SCALES)])
def test_single_precision_keeps_digits_near_the_target(loss, noise):
    t = _images(1, 2, 24, 24).float()
    x = (t + noise * _images(1, 2, 24, 24, seed=1).float()).requires_grad_()
    found = loss(x, t)
    found.backward()
    y = x.detach().double().requires_grad_()
    want = loss(y, t.double())
    want.backward()
    assert found.item() == pytest.approx(want.item(), rel=1e-6)
    assert (x.grad - y.grad).norm() < 1e-6 * y.grad.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_computed_in_single(dtype):
    x, t = (255 * _images(1, 1, 12, 12, seed=s).to(dtype) for s in (0, 1))
    loss = ssim_loss(x.requires_grad_(), t, data_range=255.0)
    assert loss.dtype == torch.float32
    want = ssim_loss(x.detach().double(), t.double(), data_range=255.0)
    assert loss.item() == pytest.approx(want.item(), rel=1e-6)
    loss.backward()
    assert x.grad.dtype == dtype


def test_equal_images_cost_nothing():
    for loss in (partial(ssim_loss, **SMALL), partial(ms_ssim_loss, **SCALES)):
        x = _images(2, 1, 24, 24).requires_grad_()
        value = loss(x, x.detach().clone())
        value.backward()
        assert value == 0
        assert (x.grad == 0).all()


@pytest.mark.parametrize("loss", [partial(ssim_loss, **SMALL), partial(ms_ssim_loss, **SCALES)])
def test_gradients_by_finite_differences(loss):
    x, t = _images(1, 2, 20, 21).requires_grad_(), _images(1, 2, 20, 21, seed=1).requires_grad_()
    torch.autograd.gradcheck(loss, (x, t), fast_mode=True)
    torch.autograd.gradgradcheck(loss, (x, t), fast_mode=True)


# ------------------------------------------------------------------------------ negative contrast


def test_negative_contrast_is_finite_and_leads_back():
    # pytorch-msssim #7, #11: NaN; cut off at 0 since, where nothing leads back
    t = _images(1, 1, 24, 24)
    x = (1 - t).requires_grad_()
    loss = ms_ssim_loss(x, t, **SCALES)
    loss.backward()
    assert 0.9 < loss < 1
    assert x.grad.isfinite().all()
    with torch.no_grad():
        better = ms_ssim_loss(x - 1e-3 * x.grad / x.grad.norm(), t, **SCALES)
    assert better < loss


def test_where_contrast_goes_on_it_does_so_smoothly():
    t = _images(1, 1, 24, 24)
    blend = torch.linspace(0, 1, 9, dtype=torch.float64)

    def mixed(w):
        return ms_ssim_loss(t * (1 - w) + (1 - t) * w, t, **{**SMALL, "scale_weight": (1.0, 0.0)})

    value, slope = zip(*(torch.func.grad_and_value(mixed)(w)[::-1] for w in blend), strict=True)
    assert (torch.stack(value).diff() > 0).all()  # the further away, the more it costs
    assert all(s.isfinite() for s in slope)
    # a contrast of -0.5 by hand: 1e-4 / (0.02 + 0.5)
    light, contrast = _by_windows(1 - t, t)
    mean = contrast.mean()
    assert mean < 0.01
    assert value[-1].item() == pytest.approx(1 - 1e-4 / (0.02 - mean.item()), rel=1e-9)
    assert light.isfinite().all()


# ------------------------------------------------------------------------------ what is refused


def test_images_smaller_than_the_window_are_refused():
    with pytest.raises(ValueError, match=r"prediction: got shape .*, wanted sides of at least 11"):
        ssim_loss(_images(1, 1, 10, 30), _images(1, 1, 10, 30), data_range=1.0)
    with pytest.raises(ValueError, match=r"at least 176, .* at 5 scales; .* 4 numbers fits"):
        ms_ssim_loss(_images(1, 1, 175, 200), _images(1, 1, 175, 200), data_range=1.0)
    x = _images(1, 1, 176, 176).float()
    assert ms_ssim_loss(x, x.clone(), data_range=1.0) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"data_range": 0.0}, "data_range"),
        ({"window_size": 1}, "window_size"),
        ({"window_size": 5.0}, "window_size"),
        ({"sigma": -1.0}, "sigma"),
        ({"k1": 0.0}, "k1"),
        ({"k2": math.nan}, "k2"),
        ({"reduction": "median"}, "reduction"),
    ],
)
def test_what_is_refused_is_named(options, says):
    for made in (SSIMLoss, MSSSIMLoss):
        with pytest.raises(ValueError, match=says):
            made(**{**SMALL, **options})
    x = _images(1, 1, 12, 12)
    with pytest.raises(ValueError, match=says):
        ssim_loss(x, x, **{**SMALL, **options})


def test_scales_and_shapes_are_refused_by_name():
    for wrong in ((), (0.0, 0.0), (1.0, -1.0)):
        with pytest.raises(ValueError, match="scale_weight"):
            MSSSIMLoss(1.0, scale_weight=wrong)
    with pytest.raises(TypeError, match="scale_weight"):
        MSSSIMLoss(1.0, scale_weight=0.5)
    with pytest.raises(ValueError, match=r"prediction: .*wanted \(N, C, H, W\)"):
        ssim_loss(_images(3, 12, 12), _images(3, 12, 12), **SMALL)
    with pytest.raises(ValueError, match="target"):
        ssim_loss(_images(2, 3, 12, 12), _images(2, 1, 12, 12), **SMALL)
    with pytest.raises(ValueError, match="data_range: got None, wanted the range of the data"):
        SSIMLoss()


def test_an_image_that_weighs_nothing_is_removed():
    x, t = _images(3, 1, 12, 12), _images(3, 1, 12, 12, seed=1)
    x[1] = torch.nan
    each = ssim_loss(x[[0, 2]], t[[0, 2]], **SMALL, reduction="none")
    found = ssim_loss(x.requires_grad_(), t, weight=[3.0, 0.0, 1.0], **SMALL)
    torch.testing.assert_close(found, (3 * each[0] + each[1]) / 4)
    found.backward()
    assert (x.grad[1] == 0).all()
    with pytest.raises(ValueError, match="weight"):
        ssim_loss(t, t, weight=torch.ones(3, 1), **SMALL)


def test_bytes_serve_as_targets():
    t = (255 * _images(1, 3, 12, 12)).byte()
    assert ssim_loss(t.float(), t, data_range=255.0) == 0
    empty = ssim_loss(_images(0, 3, 12, 12).requires_grad_(), _images(0, 3, 12, 12), **SMALL)
    empty.backward()
    assert empty == 0
