"""``module:function``: images that a function of your own code returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from isthmus.core import registry
from isthmus.core.errors import DataError, one_line
from isthmus.core.preserve_state import no_exit
from isthmus.data.given import images_and_labels
from isthmus.data.images import ImageData, Split, check_images, check_integers
from isthmus.data.loading import ImageDataset

_STEP = 1e-3
"""Most by which 255 times a pixel may differ from a whole number."""


class DataFunction(ImageDataset):
    """What a function returns: test images, or a dictionary with "train" and "test".

    Each is a pair of images and labels, a ``Dataset`` or a ``DataLoader``; or all is one
    :class:`isthmus.data.images.ImageData`. Images have 8 bits a channel, as bytes or as floats k/255.

    Attributes:
        path: ``module:function``, called without arguments. The current folder is importable.
        class_names: names of the classes; their numbers if left out.
    """

    argument: ClassVar[str | None] = "path"

    name: Literal["function"] = "function"
    path: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    class_names: tuple[str, ...] | None = None

    def read(self) -> ImageData:
        """The images of the function.

        Raises:
            DataError: there is no such function, it fails, or what it returns is something else.
        """
        found = self._called()
        if isinstance(found, ImageData):
            return found
        splits = found if isinstance(found, Mapping) else {"test": found}
        if "test" not in splits:
            raise DataError(f"{self.path} returned a dictionary with {', '.join(map(str, splits))}; it needs 'test'.")
        test = self._split(splits["test"])
        count = len(self.class_names or ()) or int(test.labels.max()) + 1
        if "train" in splits:
            train = self._split(splits["train"])
            count = max(count, int(train.labels.max()) + 1)
        else:  # one of each class defines the shape
            train = Split(test.images[:1].expand(count, -1, -1, -1).clone(), torch.arange(count))
        names = self.class_names or tuple(str(label) for label in range(count))
        data = ImageData.of(self.path, train, test, names)
        return replace(data, test_only="train" not in splits)

    def _called(self) -> Any:
        module, _, function = self.path.partition(":")
        try:
            with no_exit():
                return getattr(registry.import_module(module), function)()
        except Exception as error:
            raise DataError(f"{self.path}() failed: {one_line(error)} ({type(error).__name__}).") from error

    def _split(self, given: Any) -> Split:
        images, labels = images_and_labels(given)
        check_images(images, f"images of {self.path}")
        check_integers(labels, f"labels of {self.path}", len(images))
        levels = images.float() * 255
        bytes_ = levels.round()
        if (levels - bytes_).abs().max() > _STEP:
            raise DataError(
                f"The images of {self.path} are not of 8 bits a channel. Return bytes (torch.uint8), or audit them in "
                "Python: isthmus.audit(model, images, labels, threat)."
            )
        return Split(bytes_.to(torch.uint8).contiguous(), labels.long())
