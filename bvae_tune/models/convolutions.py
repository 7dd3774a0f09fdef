"""Convolutions, their transposes and pooling of R replicas, forward and backward.

The replicas lie side by side as channels, (B, R*C, H, W), channels last in memory: that is a grouped convolution, and
on a CPU half the time of the usual layout. Parameters and gradients are as in `layers.py`.
"""

from __future__ import annotations

from functools import cache, lru_cache

import torch
from torch import Tensor
from torch.nn import functional

_STRIDE, _PADDING = (2, 2), (1, 1)
# Output channels up to which our transposed convolution is faster on a CPU than PyTorch's.
_FEW_CHANNELS = 16


def to_grouped(images_RBD: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """(R, B, C*H*W) -> (B, R*C, H, W), channels last, for C, H, W = `shape`."""
    R, B = images_RBD.shape[:2]
    C, H, W = shape
    return images_RBD.reshape(R, B, C, H, W).permute(1, 3, 4, 0, 2).reshape(B, H, W, R * C).permute(0, 3, 1, 2)


def from_grouped(images: Tensor, channels: int) -> Tensor:
    """(B, R*C, H, W) -> (R, B, C*H*W), for C = `channels`."""
    return images.reshape(images.shape[0], images.shape[1] // channels, -1).transpose(0, 1)


def convolution(images: Tensor, weight_ROCkk: Tensor, bias_RO: Tensor) -> Tensor:
    """4x4 convolution of stride 2, padding 1, of even H and W: (B, R*C, H, W) -> (B, R*O, H/2, W/2)."""
    return _halved(images, weight_ROCkk, bias_RO)


def convolution_backward(
    gradient: Tensor, images: Tensor, weight_ROCkk: Tensor, to_images: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients to the images (where wanted), the weight and the bias."""
    return (
        _doubled(gradient, weight_ROCkk, None) if to_images else None,
        _to_weight(images, gradient, weight_ROCkk),
        _to_bias(gradient, weight_ROCkk.shape[0]),
    )


def deconvolution(images: Tensor, weight_RCOkk: Tensor, bias_RO: Tensor) -> Tensor:
    """The transpose of `convolution`: (B, R*C, H, W) -> (B, R*O, 2H, 2W)."""
    return _doubled(images, weight_RCOkk, bias_RO)


def deconvolution_backward(
    gradient: Tensor, images: Tensor, weight_RCOkk: Tensor, to_images: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients to the images (where wanted), the weight and the bias."""
    return (
        _halved(gradient, weight_RCOkk, None) if to_images else None,
        _to_weight(gradient, images, weight_RCOkk),
        _to_bias(gradient, weight_RCOkk.shape[0]),
    )


def same_convolution(images: Tensor, weight_ROCkk: Tensor, bias_RO: Tensor) -> Tensor:
    """3x3 convolution of stride 1, padding 1: (B, R*C, H, W) -> (B, R*O, H, W)."""
    groups = weight_ROCkk.shape[0]
    return functional.conv2d(images, _kernels(weight_ROCkk), bias_RO.flatten(), padding=_PADDING, groups=groups)


def same_convolution_backward(
    gradient: Tensor, images: Tensor, weight_ROCkk: Tensor, to_images: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients to the images (where wanted), the weight and the bias."""
    back, to_weight, _ = torch.ops.aten.convolution_backward(
        gradient,
        images,
        _kernels(weight_ROCkk),
        None,
        (1, 1),
        _PADDING,
        (1, 1),
        False,
        (0, 0),
        weight_ROCkk.shape[0],
        (to_images, True, False),
    )
    return (
        back if to_images else None,
        to_weight.view(weight_ROCkk.shape),
        _to_bias(gradient, weight_ROCkk.shape[0]),
    )


def max_pooling(images: Tensor) -> Tensor:
    """The largest of each 2x2 pixels: (B, R*C, H, W) -> (B, R*C, H/2, W/2)."""
    return torch.max_pool2d(images, 2)


def max_pooling_backward(gradient: Tensor, images: Tensor) -> Tensor:
    """Gradient to the images: each block's goes to its largest pixel, the first of equals."""
    places = functional.max_pool2d(images, 2, return_indices=True)[1]
    back: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
        gradient, images, (2, 2), (2, 2), (0, 0), (1, 1), False, places
    )
    return back


def unpooling(images: Tensor) -> Tensor:
    """Each pixel four times: (B, R*C, H, W) -> (B, R*C, 2H, 2W)."""
    return functional.interpolate(images, scale_factor=2, mode="nearest")


def unpooling_backward(gradient: Tensor) -> Tensor:
    """Gradient to the images: the sum over each pixel's four."""
    return functional.avg_pool2d(gradient, 2, divisor_override=1)


# oneDNN computes as many output channels at once as a register holds, and where a layer has fewer it works on padding
# and writes parts of registers, which takes up to twice the time where memory is slow. There we fold the images: f
# neighbouring columns become the channels of one. With channels last nothing moves in memory; the kernels have zeros
# where they do not reach (so an infinite pixel spoils its neighbours too).


def _fold(images: Tensor, replicas: int, outputs: int, columns: int) -> int:
    """f, for so many output channels in each of so many columns: a power of two that divides the columns.

    Columns of several replicas are not channels of one kernel.
    """
    f = 1
    if images.device.type == "cpu" and replicas == 1:
        while 2 * f * outputs <= _padded_to() and columns % (2 * f) == 0:
            f *= 2
    return f


@cache
def _padded_to() -> int:
    """The output channels that oneDNN pads to: what a register holds; 1 where that has not been measured."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return 1
    capabilities = torch.cpu.get_capabilities()
    return 16 if capabilities.get("avx512_f") else 8 if capabilities.get("avx2") else 1


def _with_width(images: Tensor, width: int) -> Tensor:
    """(B, C, H, W) -> (B, C*W/width, H, width): columns become channels, or channels columns."""
    B, C, H, W = images.shape
    if width == W:
        return images
    channels = C * W // width
    dense = images.contiguous(memory_format=torch.channels_last)
    return dense.as_strided((B, channels, H, width), (C * H * W, 1, C * W, channels))


def _halved(images: Tensor, weight: Tensor, bias_RO: Tensor | None) -> Tensor:
    """The convolution of stride 2."""
    R, outputs, C = weight.shape[:3]
    W = images.shape[3]
    f = _fold(images, R, outputs, W // 2)
    kernels = _kernels(weight) if f == 1 else _gathered(weight, _halving_taps(outputs, C, f), (4, 4, f * C))
    halved = functional.conv2d(_with_width(images, W // f), kernels, _repeated(bias_RO, f), _STRIDE, _PADDING, groups=R)
    return _with_width(halved, W // 2)


@cache
def _halving_taps(outputs: int, channels: int, f: int) -> Tensor:
    """Where the taps of a folded kernel (f, O, 4, 4, f, C) lie in a kernel (O, 4, 4, C), flattened; zeros at its end.

    Output column q of a fold begins at column 2q - 1 of the images' fold, so column p of fold t - 1 is its tap x.
    """
    q, output, y, t, p, channel = _grid(f, outputs, 4, 4, f, channels)
    x = f * (t - 1) + p - (2 * q - 1)
    places = ((output * 4 + y) * 4 + x) * channels + channel
    return places.where((x >= 0) & (x < 4), outputs * 16 * channels).flatten()


def _to_weight(images: Tensor, halved: Tensor, weight: Tensor) -> Tensor:
    """Gradient to the kernels between `images` and `halved`, whichever of the two came in."""
    R, outputs, C = weight.shape[:3]
    W = images.shape[3]
    f = _fold(images, R, outputs, W // 2)
    # torch.nn.grad.conv2d_weight is this call without the weight, from which it would take the layout.
    kernels = _kernels(weight) if f == 1 else weight.new_empty(f * outputs, 4, 4, f * C).permute(0, 3, 1, 2)
    gradient: Tensor = torch.ops.aten.convolution_backward(
        _with_width(halved, W // 2 // f),
        _with_width(images, W // f),
        kernels,
        None,
        _STRIDE,
        _PADDING,
        (1, 1),
        False,
        (0, 0),
        R,
        (False, True, False),
    )[1]
    if f == 1:
        return gradient.view(weight.shape)
    # Back to where the taps were taken from; what has gathered at the end belongs to the zeros.
    taps = gradient.permute(0, 2, 3, 1).flatten().float()
    summed = taps.new_zeros(outputs * 16 * C + 1).index_add_(0, _halving_taps(outputs, C, f), taps)
    return summed[:-1].to(weight.dtype).view(1, outputs, 4, 4, C).permute(0, 1, 4, 2, 3)


def _doubled(images: Tensor, weight: Tensor, bias_RO: Tensor | None) -> Tensor:
    """The transposed convolution of stride 2. On a CPU PyTorch's own is up to four times slower for few outputs.

    The pixels of even and of odd rows (two phases) are each a convolution of the images with two rows of the kernel,
    and both together one of twice the channels; so are those of even and odd columns. Of the columns, neighbours then
    lie side by side already; the rows are woven, from runs of values that stay together. (By strides that copy takes up
    to three times as long.)
    """
    R, C, outputs = weight.shape[:3]
    if outputs > _FEW_CHANNELS or images.device.type != "cpu":
        return functional.conv_transpose2d(images, _kernels(weight), _repeated(bias_RO, 1), _STRIDE, _PADDING, groups=R)
    B, _, H, W = images.shape
    f = _fold(images, R, 4 * outputs, W)
    kernels = _gathered(weight, _doubling_taps(C, outputs, f), (2, 3, f * C))
    phases = functional.conv2d(
        _with_width(images, W // f), kernels, _repeated(bias_RO, 4 * f), padding=_PADDING, groups=R
    )
    # Several replicas lie between the columns of the result, but around those of a phase.
    pieces = 1 if R == 1 else 2 * f
    runs = phases.permute(0, 2, 3, 1).reshape(-1, 2 * f // pieces * outputs)
    woven = runs.index_select(0, _weaving_runs(B, H, W // f, R, pieces))
    return woven.view(B, 2 * H, 2 * W, R * outputs).permute(0, 3, 1, 2)


@lru_cache(maxsize=16)  # a network needs some four for each number of images, and these come and go
def _weaving_runs(images: int, height: int, folds: int, replicas: int, pieces: int) -> Tensor:
    """Where the runs of woven images lie in their phases (images, height + 1, folds, replicas, 2, pieces).

    Rows 2i and 2i + 1 are those of phase 1 in row i and of phase 0 in row i + 1.
    """
    image, i, odd, fold, piece, replica = _grid(images, height, 2, folds, pieces, replicas)
    place = ((image * (height + 1) + i + odd) * folds + fold) * replicas + replica
    return ((2 * place + 1 - odd) * pieces + piece).flatten().int()


@cache
def _doubling_taps(channels: int, outputs: int, f: int) -> Tensor:
    """Where the taps of the phases' kernels (2, 2f, O, 2, 3, f, C) lie in a kernel (C, 4, 4, O); zeros at its end.

    Row t of phase p is row y of the kernel. Output column q of a fold meets column m of the fold u - 1 at its tap x.
    """
    p, q, output, t, u, m, channel = _grid(2, 2 * f, outputs, 2, 3, f, channels)
    y = 2 * (1 - t) + p
    x = q + 1 - 2 * (f * (u - 1) + m)
    places = ((channel * 4 + y) * 4 + x) * outputs + output
    return places.where((x >= 0) & (x < 4), channels * 16 * outputs).flatten()


def _grid(*sizes: int) -> tuple[Tensor, ...]:
    return torch.meshgrid(*map(torch.arange, sizes), indexing="ij")


def _gathered(weight: Tensor, places: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Kernels of this shape (height, width, channels) from places in kernels (R, O, C, k, k).

    Each replica's are flattened with the channels last, and a zero follows.
    """
    taps = functional.pad(weight.permute(0, 1, 3, 4, 2).flatten(1), (0, 1)).index_select(1, places)
    return taps.view(-1, *shape).permute(0, 3, 1, 2)


def _repeated(bias_RO: Tensor | None, times: int) -> Tensor | None:
    return None if bias_RO is None else bias_RO[:, None].expand(-1, times, -1).flatten()


def _kernels(weight: Tensor) -> Tensor:
    """Kernels (R, O, C, k, k) as (R*O, C, k, k)."""
    kernels = weight.flatten(0, 1)
    k = kernels.shape[-1]
    # With one channel both layouts fit, and strides that do not say which cost the whole convolution its speed.
    return kernels if kernels.shape[1] > 1 else kernels.as_strided(kernels.shape, (k * k, 1, k, 1))


def _to_bias(gradient: Tensor, replicas: int) -> Tensor:
    return gradient.sum((0, 2, 3), dtype=torch.float32).view(replicas, -1)
