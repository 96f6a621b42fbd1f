"""Each operation against an independent implementation (scipy, Pillow, matplotlib, or a loop over pixels)."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import pytest
import torch
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image
from scipy import ndimage, stats

from isthmus.core.randomness import example_keys, fold, normal, uniform
from isthmus.data.corruptions import blurs, digital, filters, noise, weather
from isthmus.data.corruptions.parameters import CIFAR10_C, IMAGENET_C, MNIST_C, Severity
from isthmus.data.corruptions.weather import plasma

CASES = [
    pytest.param(table, severity, id=f"{name}-{severity}")
    for name, table in (("cifar", CIFAR10_C), ("imagenet", IMAGENET_C))
    for severity in range(5)
]


def photographs(count: int, channels: int, size: int, seed: int = 0) -> torch.Tensor:
    """Bytes as fractions: smooth shapes, noise, flat images and some black and white."""
    random = np.random.default_rng(seed)
    images = random.random((count, channels, size, size))
    images[::2] = ndimage.gaussian_filter(images[::2], (0, 0, 3, 3)) * 3 - 1
    images[:, :, :3, :3] = 0
    images[:, :, -3:] = 1
    images[-1] = 0.5
    return torch.from_numpy(np.rint(images.clip(0, 1) * 255) / 255).float()


def keys(count: int = 3) -> torch.Tensor:
    return example_keys(5, torch.arange(count))


def last(image: torch.Tensor) -> np.ndarray:
    """Channels last, as the other libraries have them."""
    return image.permute(1, 2, 0).double().numpy()


def close(ours: torch.Tensor, theirs: list[np.ndarray], tolerance: float = 2e-6) -> None:
    np.testing.assert_allclose(ours.permute(0, 2, 3, 1).numpy(), np.stack(theirs), atol=tolerance, rtol=0)


@pytest.mark.parametrize(("table", "severity"), CASES)
def test_noise(table: dict[str, tuple[Severity, ...]], severity: int) -> None:
    images = photographs(3, 3, 32)
    (sigma,), (photons,), (share,) = (table[n][severity] for n in ("gaussian_noise", "shot_noise", "impulse_noise"))
    added = noise.gaussian_noise(images, (sigma,), keys()) - images
    assert stats.kstest(added.numpy().ravel(), "norm", args=(0, sigma)).pvalue > 1e-3
    drawn = uniform(keys(), (3, 32, 32)).double() + 2**-25
    expected = stats.poisson.ppf(drawn.numpy(), images.double().numpy() * photons) / photons
    np.testing.assert_allclose(noise.shot_noise(images, (photons,), keys()).numpy(), expected, atol=1e-6)
    struck = noise.impulse_noise(images.clamp(0.2, 0.8), (share,), keys())
    black, white = (struck == 0).sum(), (struck == 1).sum()
    count = images.numel()
    assert stats.binomtest(int(black + white), count, share).pvalue > 1e-3
    assert stats.binomtest(int(black), int(black + white), 0.5).pvalue > 1e-3
    untouched = (struck > 0) & (struck < 1)
    assert torch.equal(struck[untouched], images.clamp(0.2, 0.8)[untouched])


def test_no_count_of_photons_is_negative_where_the_number_drawn_is_least() -> None:
    counts = noise._poisson_table(60, torch.device("cpu"))[1]
    table = noise._poisson_table(60, torch.device("cpu"))[0].view(256, counts)
    level = torch.arange(256).double()
    assert (torch.searchsorted(table, (level + 2**-25)[:, None]) < counts).all()
    found = torch.searchsorted(table.ravel(), level + 2**-25) - torch.arange(256) * counts
    assert (found >= 0).all()
    found = torch.searchsorted(table.ravel(), level + 1 - 2**-25) - torch.arange(256) * counts
    assert (found < counts - 1).all()


@pytest.mark.parametrize(("table", "severity"), CASES)
def test_defocus_blur(table: dict[str, tuple[Severity, ...]], severity: int) -> None:
    radius, alias = table["defocus_blur"][severity]
    images = photographs(2, 3, 40)
    reach, smoothing = (8, 1) if radius <= 8 else (int(radius), 2)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (x**2 + y**2 <= radius**2) / (x**2 + y**2 <= radius**2).sum()
    kernel = ndimage.gaussian_filter(disk, alias, mode="mirror", radius=smoothing)
    theirs = [ndimage.correlate(last(image), kernel[..., None], mode="mirror") for image in images]
    close(blurs.defocus_blur(images, (radius, alias), keys(2)), theirs)


@pytest.mark.parametrize(("table", "severity"), CASES)
def test_zoom_blur(table: dict[str, tuple[Severity, ...]], severity: int) -> None:
    bound, step = table["zoom_blur"][severity]
    images = photographs(2, 3, 45)
    factors = np.arange(1, bound, step)
    if table is CIFAR10_C:
        assert len(factors) == (7, 12, 16, 21, 26)[severity]
    theirs = [np.mean([last(image), *(zoomed(last(image), factor) for factor in factors)], axis=0) for image in images]
    close(blurs.zoom_blur(images, (bound, step), keys(2)), theirs)


def zoomed(image: np.ndarray, factor: float) -> np.ndarray:
    size = len(image)
    middle = math.ceil(size / factor)
    top = (size - middle) // 2
    large = ndimage.zoom(image[top : top + middle, top : top + middle], (factor, factor, 1), order=1)
    trim = (len(large) - size) // 2
    return large[trim : trim + size, trim : trim + size]


@pytest.mark.parametrize(("table", "severity"), CASES)
@pytest.mark.parametrize("channels", [1, 3])
def test_glass_blur(table: dict[str, tuple[Severity, ...]], severity: int, channels: int) -> None:
    sigma, reach, rounds = table["glass_blur"][severity]
    images = photographs(2, channels, 28)
    theirs = []
    for index, image in enumerate(images):
        smooth = filters.gaussian(image[None], sigma)
        close(smooth, [smoothed(last(image), sigma)])
        smooth = np.uint8(last(filters.quantised(smooth)[0]) * 255 + 0.5)
        smooth = smooth if channels == 3 else smooth[..., 0]
        for turn in range(rounds):
            visit(smooth, fold(keys(2)[index : index + 1], "glass_blur/round", turn), reach)
        theirs.append(smoothed(smooth.reshape(28, 28, channels) / 255, sigma))
    close(blurs.glass_blur(images, (sigma, reach, rounds), keys(2)), theirs)


def smoothed(image: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest", truncate=4.0)


def visit(image: np.ndarray, key: torch.Tensor, reach: int) -> None:
    """Pixel by pixel, in place; a pixel of several channels is a view, so that the second assignment does nothing."""
    size = len(image)
    places = list(range(size - reach, reach, -1))
    offsets = (uniform(key, (2, len(places), len(places)))[0] * 2 * reach).long().numpy() - reach
    happens = uniform(fold(key, "glass_blur/exchanged"), (len(places) ** 2,))[0].view(len(places), -1) < 0.5
    for i, row in enumerate(places):
        for j, column in enumerate(places):
            other = row + offsets[0, i, j], column + offsets[1, i, j]
            assert 0 <= min(other) <= max(other) < size
            if image.ndim == 3 or happens[i, j]:
                image[row, column], image[other] = image[other], image[row, column]


@pytest.mark.parametrize("degrees", [-45.0, -10.0, 0.0, 7.3, 45.0, -90.0, -135.0])
@pytest.mark.parametrize(("radius", "sigma"), [(6, 1), (10, 3), (20, 15)])
def test_motion_blur(degrees: float, radius: int, sigma: float) -> None:
    images = photographs(2, 3, 32)
    taps = np.arange(2 * radius + 1)
    weights = stats.halfnorm.pdf(taps, scale=sigma)
    turn = np.deg2rad(degrees)
    y, x = np.mgrid[:32, :32]
    theirs = np.zeros((2, 3, 32, 32))
    for tap, weight in zip(taps, weights / weights.sum(), strict=True):
        places = y + np.ceil(tap * np.sin(turn) - 0.5), x + np.ceil(tap * np.cos(turn) - 0.5)
        for n, c in np.ndindex(2, 3):
            theirs[n, c] += weight * ndimage.map_coordinates(images[n, c].double(), places, order=0, mode="nearest")
    ours = blurs.blur_along(images, radius, sigma, torch.full((2,), degrees))
    np.testing.assert_allclose(ours.numpy(), theirs, atol=0.5 / 255 + 1e-6)  # rounded to bytes
    assert (ours * 255 - (ours * 255).round()).abs().max() < 1e-4


def test_motion_blurs_directions_are_those_of_the_paper() -> None:
    seen = {}

    def record(images: torch.Tensor, radius: float, sigma: float, degrees: torch.Tensor) -> torch.Tensor:
        seen["degrees"] = degrees
        return images

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blurs, "blur_along", record)
        for operation, low, high in ((blurs.motion_blur, -45, 45), (weather.snow, -135, -45)):
            table = CIFAR10_C["motion_blur" if operation is blurs.motion_blur else "snow"]
            operation(torch.zeros(4000, 1, 28, 28), table[0], keys(4000))
            drawn = seen["degrees"].numpy()
            assert stats.kstest(drawn, "uniform", args=(low, high - low)).pvalue > 1e-3


@pytest.mark.parametrize(("size", "decay"), [(32, 3), (64, 1.75)])
def test_plasma(size: int, decay: float) -> None:
    ours = plasma(keys(2), size, decay).numpy()
    for index in range(2):
        key = keys(2)[index : index + 1]
        grid, rough, step, level = np.zeros((size, size)), 100.0, size, 0
        while step >= 2:
            half, count = step // 2, size // step
            names = ("plasma/middles", "plasma/above", "plasma/beside")
            drawn = [uniform(fold(key, name, level), (count, count))[0].numpy() * 2 - 1 for name in names]
            corners = [(0, 0), (0, step), (step, 0), (step, step)]
            sides = [(-half, 0), (half, 0), (0, -half), (0, half)]
            for which, (down, right, around) in enumerate(
                [(half, half, [(y - half, x - half) for y, x in corners]), (0, half, sides), (half, 0, sides)]
            ):
                for i, j in np.ndindex(count, count):
                    y, x = i * step + down, j * step + right
                    mean = np.mean([grid[(y + dy) % size, (x + dx) % size] for dy, dx in around])
                    grid[y, x] = mean + rough * rough * drawn[which][i, j]
            step, level, rough = half, level + 1, rough / decay
        expected = (grid - grid.min()) / (grid.max() - grid.min())
        np.testing.assert_allclose(ours[index], expected, atol=1e-5)


@pytest.mark.parametrize(("table", "severity"), CASES)
@pytest.mark.parametrize("channels", [1, 3])
def test_weather(table: dict[str, tuple[Severity, ...]], severity: int, channels: int) -> None:
    images = photographs(2, channels, 32)
    thickness, decay = table["fog"][severity]
    clouds = plasma(keys(2), 64, decay).double().numpy()[:, :32, :32, None]
    theirs = [
        (last(x) + thickness * cloud) * last(x).max() / (last(x).max() + thickness)
        for x, cloud in zip(images, clouds, strict=True)
    ]
    close(weather.fog(images, (thickness, decay), keys(2), 64), theirs)

    mean, deviation, zoom, threshold, radius, sigma, kept = table["snow"][severity]
    theirs = []
    for index, image in enumerate(images):
        key = keys(2)[index : index + 1]
        layer = zoomed(normal(key, (1, 32, 32))[0, 0].double().numpy()[..., None] * deviation + mean, zoom)
        flakes = np.uint8(np.where(layer < threshold, 0, layer.clip(0, 1)) * 255 + 1e-3) / 255
        angle = uniform(fold(key, "snow/angle"), ()) * 90 - 135
        falling = last(
            blurs.blur_along(torch.from_numpy(flakes).float().permute(2, 0, 1)[None], radius, sigma, angle)[0]
        )
        grey = last(image) @ [0.299, 0.587, 0.114] if channels == 3 else last(image)[..., 0]
        white = np.maximum(last(image), grey[..., None] * 1.5 + 0.5)
        theirs.append(kept * last(image) + (1 - kept) * white + falling + falling[::-1, ::-1])
    close(weather.snow(images, table["snow"][severity], keys(2)), theirs)


def test_frost_adds_a_part_of_a_photograph() -> None:
    images = photographs(200, 3, 32)
    rows, columns = torch.meshgrid(torch.arange(60), torch.arange(50), indexing="ij")
    pair = [torch.stack([rows, columns, torch.full_like(rows, which)]).byte() for which in range(2)]
    parts = ((weather.frost(images, (0.5, 0.25), keys(200), pair) - 0.5 * images) * 4 * 255).round().long()
    tops, lefts, which = parts[:, :, 0, 0].t()
    assert torch.equal(parts[:, 0], (tops[:, None] + torch.arange(32))[:, :, None].expand(-1, -1, 32))
    assert torch.equal(parts[:, 1], (lefts[:, None] + torch.arange(32))[:, None].expand(-1, 32, -1))
    assert stats.binomtest(int(which.sum()), 200, 0.5).pvalue > 1e-3
    assert set(tops.tolist()) == set(range(28))
    assert set(lefts.tolist()) == set(range(18))


@pytest.mark.parametrize(("table", "severity"), CASES)
def test_brightness_and_contrast(table: dict[str, tuple[Severity, ...]], severity: int) -> None:
    images = photographs(2, 3, 32)
    (more,), (left,) = table["brightness"][severity], table["contrast"][severity]
    theirs = []
    for image in images:
        hsv = rgb_to_hsv(last(image))
        hsv[..., 2] = (hsv[..., 2] + more).clip(0, 1)
        theirs.append(hsv_to_rgb(hsv))
    close(digital.brightness(images, (more,), keys(2)), theirs)
    means = images.double().numpy().mean((2, 3), keepdims=True)
    np.testing.assert_allclose(
        digital.contrast(images, (left,), keys(2)), (images.double().numpy() - means) * left + means, atol=1e-6
    )


@pytest.mark.parametrize("size", [28, 32, 33, 224])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixelate_and_jpeg_compression_give_pillows_bytes(size: int, channels: int) -> None:
    images = photographs(2, channels, size)
    for severity in [*CIFAR10_C["pixelate"], *IMAGENET_C["pixelate"]]:
        small = (int(size * severity[0]),) * 2
        theirs = [
            np.asarray(pillow(x).resize(small, Image.Resampling.BOX).resize((size, size), Image.Resampling.BOX))
            for x in images
        ]
        close(digital.pixelate(images, severity, keys(2)) * 255, [x.reshape(size, size, -1) for x in theirs], 1e-4)
    for severity in [*CIFAR10_C["jpeg_compression"], *IMAGENET_C["jpeg_compression"]]:
        theirs = []
        for image in images:
            file = BytesIO()
            pillow(image).save(file, "JPEG", quality=severity[0])
            theirs.append(np.asarray(Image.open(file)).reshape(size, size, -1))
        close(digital.jpeg_compression(images, severity, keys(2)) * 255, theirs, 1e-4)


def pillow(image: torch.Tensor) -> Image.Image:
    pixels = np.rint(last(image) * 255).astype(np.uint8)
    return Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])


@pytest.mark.parametrize(
    ("table", "size", "black"),
    [(CIFAR10_C, 32, False), (IMAGENET_C, 64, False), (IMAGENET_C, 224, False), (MNIST_C, 28, True)],
)
@pytest.mark.parametrize("severity", range(5))
def test_elastic_transform(table: dict[str, tuple[Severity, ...]], size: int, black: bool, severity: int) -> None:
    images = photographs(2, 1 if black else 3, size)
    alpha, sigma, moved = (part * size for part in table["elastic_transform"][severity])
    beyond = {"mode": "grid-constant", "cval": 0.0} if black else {"mode": "mirror"}
    y, x = np.mgrid[:size, :size].astype(float)
    theirs = []
    for index, image in enumerate(images.double().numpy()):
        key = keys(2)[index : index + 1]
        middle, reach = size // 2, size // 3
        square = np.array([[1, 1], [1, -1], [-1, -1]]) * reach + middle
        there = square + (uniform(key, (3, 2))[0].double().numpy() * 2 - 1) * moved
        forward = np.linalg.solve(np.c_[square, np.ones(3)], there).T
        matrix, shift = np.linalg.inv(forward[:, :2]), forward[:, 2]
        source = np.einsum("ij,jhw->ihw", matrix, np.stack([x, y]) - shift[:, None, None])
        warped = [ndimage.map_coordinates(plane, source[::-1], order=1, **beyond) for plane in image]
        drawn = uniform(fold(key, "elastic_transform/shifts"), (2, size, size))[0].double().numpy() * 2 - 1
        dx, dy = (
            ndimage.gaussian_filter(d, sigma, mode="reflect", truncate=3) * alpha if alpha else d * 0 for d in drawn
        )
        mode = "constant" if black else "reflect"
        bent = [ndimage.map_coordinates(plane, (y + dy, x + dx), order=1, mode=mode) for plane in warped]
        theirs.append(np.stack(bent, -1))
    # coordinates are float32 there: a hundred-thousandth of a pixel between black and white
    close(digital.elastic_transform(images, table["elastic_transform"][severity], keys(2), black), theirs, 2e-4)


def test_bytes_are_rounded_down_and_none_is_lost() -> None:
    levels = (torch.arange(256) / 255).view(1, 1, 16, 16)
    assert torch.equal(filters.quantised(levels).mul(255).round(), torch.arange(256.0).view(1, 1, 16, 16))
    values = torch.tensor([-0.2, 0.9 / 255, 1.5 / 255, 1.3]).view(1, 1, 2, 2)
    assert torch.equal(filters.quantised(values).mul(255).round().flatten(), torch.tensor([0.0, 0, 1, 255]))
