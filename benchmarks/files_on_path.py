"""The files and lines of isthmus that run between an image and the page, for a robustness check with PGD.

    python -m benchmarks.files_on_path

A file counts, with all its lines, if one of its functions is called from the first call of ``isthmus.audit`` to the
finished page. What runs while a module is imported does not count. The second number of each line counts the lines of
the functions that were called.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

import torch
from torch import nn

import isthmus

SOURCE = Path(isthmus.__file__).parent


def functions_on_path(folder: Path) -> set[CodeType]:
    """Audit a small network with PGD, write its page, and return the functions that ran."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    images = torch.rand(60, 1, 8, 8)
    labels = model(images).argmax(1)
    checks = [{"name": "robustness", "attacks": ["pgd:10"], "levels": 2}]
    called: set[CodeType] = set()

    def record(frame: FrameType, event: str, arg: object) -> None:
        if event == "call":
            called.add(frame.f_code)

    isthmus.audit(model, images, labels, "linf:0.1", checks=checks).save(folder / "page.html")  # imports everything
    threading.setprofile(record)
    sys.setprofile(record)
    try:
        isthmus.audit(model, images, labels, "linf:0.1", checks=checks).save(folder / "page.html")
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return {code for code in called if code.co_filename.startswith(str(SOURCE))}


def main() -> None:
    """Print the files with their lines, and the totals of each package."""
    with tempfile.TemporaryDirectory() as folder:
        functions = functions_on_path(Path(folder))
    ran: Counter[Path] = Counter()
    for code in functions:
        nested = code.co_qualname.rpartition(".<locals>.")[0]  # its lines belong to the function around it
        if not any(other.co_qualname == nested and other.co_filename == code.co_filename for other in functions):
            ran[Path(code.co_filename).relative_to(SOURCE)] += _lines(code)
    lines = {file: len((SOURCE / file).read_text("utf-8").splitlines()) for file in sorted(ran)}
    for file, count in lines.items():
        print(f"{count:6} {ran[file]:5}  {file}")
    packages = Counter(file.parts[0] if len(file.parts) > 1 else "isthmus" for file in lines)
    print(", ".join(f"{package} {count}" for package, count in packages.items()))
    print(f"{len(lines)} files, {sum(lines.values()):,} lines, {sum(ran.values()):,} of them in functions that ran")


def _lines(code: CodeType) -> int:
    """Lines of a function, from its first to the last that holds code; 0 for a template's."""
    if not code.co_filename.endswith(".py"):
        return 0
    return max(line for _, _, line in code.co_lines() if line is not None) - code.co_firstlineno + 1


if __name__ == "__main__":
    main()
