"""``module:function``: images that a function of your own code returns."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from isthmus.core import registry
from isthmus.core.errors import DataError, one_line
from isthmus.core.preserve_state import no_exit
from isthmus.data.given import image_data, parts_of, split_of
from isthmus.data.images import ImageData
from isthmus.data.loading import ImageDataset


class DataFunction(ImageDataset):
    """What a function returns: test images, or a dictionary with "test" and perhaps "train" and "validation".

    An object with these attributes is one, too. Each part is a pair of images and labels, a ``Dataset`` or a
    ``DataLoader``; or all is one :class:`isthmus.data.images.ImageData`. Images have 8 bits a channel, as bytes or as
    floats k/255.

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
        parts = parts_of(found, "test", f"{self.path} returned")
        if "test" not in parts:
            raise DataError(f"{self.path} returned only {', '.join(map(repr, parts)) or 'no part'}; it needs 'test'.")
        read = {name: split_of(part, self.path) for name, part in parts.items()}
        return image_data(self.path, read, self.class_names)

    def _called(self) -> Any:
        module, _, function = self.path.partition(":")
        try:
            with no_exit():
                return getattr(registry.import_module(module), function)()
        except Exception as error:
            raise DataError(f"{self.path}() failed: {one_line(error)} ({type(error).__name__}).") from error
