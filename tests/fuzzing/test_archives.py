"""Archives and arrays: members stay where they are, objects are never unpickled, and the sources hold no way around."""

from __future__ import annotations

import ast
import pickle
import stat
import warnings
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import isthmus
from isthmus.core import files
from isthmus.data.safe_pickle import read_pickle
from isthmus.data.shift.shifted import load
from tests.fuzzing.hostile import Draw, pickles, spoiled
from tests.fuzzing.trials import cases, judge, place

SOURCE = Path(isthmus.__file__).parent
MEMBERS = [
    "../escaped",
    "../../../../escaped",
    "/tmp/escaped-of-isthmus",
    "a/../../escaped",
    "..\\escaped",
    "C:\\escaped",
]


def _member(array: np.ndarray) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@st.composite
def archives(draw: Draw, marker: Path) -> bytes:
    """An ``.npz`` whose members lie elsewhere, are links, repeat one another, or unfold to far more than they take."""
    kind = draw(st.sampled_from(["members", "members", "link", "bomb", "header", "pickle", "bytes"]))
    if kind == "pickle":
        return draw(st.sampled_from(pickles(marker)))
    buffer = BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # two members of one name
        if kind == "link":
            entry = zipfile.ZipInfo("x.npy")
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, str(marker))
        elif kind == "bomb":
            archive.writestr("x.npy", _member(np.zeros(1))[:-8] + b"\0" * (16 << 20))
        elif kind == "header":  # arrays larger than any memory, or of a type with a name
            shape = draw(
                st.sampled_from(["(2**60,)", "(10**30,)", "(-1,)", "()", "(3,)*90", "os.system('x')", "[" * 300])
            )
            kinds = draw(
                st.sampled_from(["'<f8'", "'|O'", "[('a', '|O')]", "'<U99999999'", "'M8[ns]'", "__import__('os')"])
            )
            text = f"{{'descr': {kinds}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
            archive.writestr("x.npy", b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text)
        else:
            for name in draw(st.lists(st.sampled_from(MEMBERS), min_size=1, max_size=2)):
                archive.writestr(f"{name}.npy", _member(np.arange(3)))
    return draw(spoiled(buffer.getvalue())) if kind == "bytes" else buffer.getvalue()


@given(data=st.data())
@cases(20, 250)
def test_members_of_archives_stay_inside(data: st.DataObject) -> None:
    with place() as here:
        path = here.write("deep/er/a.npz", data.draw(archives(here.marker)))
        judge("archive", here, lambda: files.read_arrays(path))
        assert not list(here.folder.parent.rglob("*escaped*"))
        assert not Path("/tmp/escaped-of-isthmus.npy").exists()


@given(data=st.data())
@cases(8, 120)
def test_published_arrays_are_read_or_refused(data: st.DataObject) -> None:
    sound = _member(np.zeros((2000, 32, 32, 3), dtype=np.uint8))
    with place() as here:
        kind = data.draw(st.sampled_from(["bytes", "bytes", "archive", "pickle"]))
        content = (
            data.draw(spoiled(sound))
            if kind == "bytes"
            else data.draw(archives(here.marker) if kind == "archive" else st.sampled_from(pickles(here.marker)))
        )
        here.write("cifar10.1_v6_data.npy", content)
        here.write("cifar10.1_v6_labels.npy", _member(np.zeros(2000, dtype=np.int64)))
        judge("published arrays", here, lambda: load({"name": "cifar10_1", "path": str(here.folder)}))


@given(data=st.data())
@cases(12, 200)
def test_pickles_of_cifars_archive_are_read_or_refused(data: st.DataObject) -> None:
    """Also those that set attributes of what they name, and those of other objects."""
    images = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)
    sound = pickle.dumps({b"data": images, b"fine_labels": [0, 1]}, data.draw(st.sampled_from([2, 4, 5])))
    named = (b"numpy\nndarray", b"numpy\ndtype", b"_codecs\nencode", b"numpy.core.multiarray\n_reconstruct")
    with place() as here:
        built = [b"c" + name + b"\nN}(V__code__\nNV__setstate__\nc_codecs\nencode\nu\x86b." for name in named]
        hostile = [*pickles(here.marker), *built, b"cos\nsystem\n(S'touch x'\ntR.", b"\x80\x02]" + b"(" * 5000 + b"."]
        content = data.draw(st.one_of(spoiled(sound), st.sampled_from(hostile)))
        path = here.write("train", content)
        judge("archive of CIFAR", here, lambda: read_pickle(path, "Copy it again."))
        assert read_pickle(here.write("sound", sound), "")["data"].tolist() == images.tolist(), "nothing has changed"


# --- what the sources may not hold ---

FORBIDDEN = {
    "pickle.load": "unpickling runs code",
    "pickle.loads": "unpickling runs code",
    "pickle.Unpickler": "unpickling runs code",
    "cloudpickle.load": "unpickling runs code",
    "cloudpickle.loads": "unpickling runs code",
    "joblib.load": "it unpickles",
    "dill.load": "it unpickles",
    "dill.loads": "it unpickles",
    "marshal.load": "it makes code",
    "marshal.loads": "it makes code",
    "shelve.open": "it unpickles",
    "torch.hub.load": "it runs what it downloads",
    "torch.jit.load": "it runs what the file holds",
    "torch.export.load": "it may unpickle what the file holds",
    "yaml.load": "use the one loader of isthmus.core.config",
    "yaml.load_all": "use the one loader of isthmus.core.config",
    "yaml.unsafe_load": "it makes any object",
    "yaml.full_load": "it makes some objects",
    "eval": "it runs text",
    "exec": "it runs text",
    "compile": "it makes code of text",
    "os.system": "a shell",
    "os.popen": "a shell",
    "tarfile.open": "members may leave their folder",
    "shutil.unpack_archive": "members may leave their folder",
    "extractall": "members may leave their folder",
    "extract": "members may leave their folder",
}
NEEDS = {
    "torch.load": ("weights_only", True),
    "numpy.load": ("allow_pickle", False),
    "np.load": ("allow_pickle", False),
}
"""Calls that are safe with an argument alone."""

OWN_PROCESSES = (
    "a pipe between processes of one command, which started one another; no file, and no other machine's word"
)
ALLOWED = {
    ("core/process_pool.py", "pickle.loads"): OWN_PROCESSES,
    ("core/execution.py", "pickle.loads"): f"{OWN_PROCESSES}; or bytes that the line before made",
    ("core/ray_cluster.py", "pickle.loads"): "Ray's own channel between workers that the command started",
    ("core/config.py", "yaml.load"): "with a SafeLoader that refuses more",
    ("data/safe_pickle.py", "pickle.Unpickler"): "CIFAR's archive; it finds only stand-ins for arrays of bytes",
    ("models/external/model_files.py", "torch.jit.load"): "a model that the user names is a program, and runs",
    ("models/external/model_files.py", "torch.export.load"): "likewise",
}


def _called(node: ast.Call) -> str:
    """The dotted name of what is called; of a method on something else a dot and its own name."""
    names: list[str] = []
    part: ast.expr = node.func
    while isinstance(part, ast.Attribute):
        names.append(part.attr)
        part = part.value
    return ".".join(reversed([*names, part.id])) if isinstance(part, ast.Name) else f".{names[0]}" if names else ""


def _faults(tree: ast.AST, where: str) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "marshal", "shelve", "dill", "joblib"):
            found.append(f"{where}:{node.lineno}: import {node.module} as a whole, so that its calls can be seen")
        if isinstance(node, ast.ClassDef):
            bases = [ast.unparse(base) for base in node.bases]
            found += [
                f"{where}:{node.lineno}: {base}: {FORBIDDEN[base]}"
                for base in bases
                if base in FORBIDDEN and (where, base) not in ALLOWED
            ]
        if not isinstance(node, ast.Call):
            continue
        name = _called(node)
        given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
        if name in NEEDS and given.get(NEEDS[name][0]) is not NEEDS[name][1]:
            found.append(f"{where}:{node.lineno}: {name} needs {NEEDS[name][0]}={NEEDS[name][1]}")
        last = name.rpartition(".")[2]
        forbidden = FORBIDDEN.get(name) or (FORBIDDEN.get(last) if last in ("extractall", "extract") else None)
        if forbidden and (where, name) not in ALLOWED:
            found.append(f"{where}:{node.lineno}: {name}: {forbidden}")
        if given.get("shell") is True:
            found.append(f"{where}:{node.lineno}: a shell")
        if given.get("allow_pickle") is True:
            found.append(f"{where}:{node.lineno}: {name} unpickles")
    return found


def test_no_source_can_run_what_a_file_holds() -> None:
    faults = []
    for path in sorted(SOURCE.rglob("*.py")):
        faults += _faults(ast.parse(path.read_text("utf-8")), path.relative_to(SOURCE).as_posix())
    assert not faults


@pytest.mark.parametrize(("where", "name"), ALLOWED)
def test_every_exception_is_still_needed(where: str, name: str) -> None:
    nodes = list(ast.walk(ast.parse((SOURCE / where).read_text("utf-8"))))
    calls = [_called(node) for node in nodes if isinstance(node, ast.Call)]
    bases = [ast.unparse(base) for node in nodes if isinstance(node, ast.ClassDef) for base in node.bases]
    assert name in calls + bases


def test_this_test_sees_what_is_forbidden() -> None:
    text = (
        "pickle.loads(x); torch.load(p); np.load(p); eval(t); archive.extractall(); yaml.load(t, Loader)\n"
        "subprocess.run(t, shell=True); np.save(p, a, allow_pickle=True)\nfrom pickle import loads\n"
        "class Reader(pickle.Unpickler): pass\n"
    )
    assert len(_faults(ast.parse(text), "somewhere.py")) == 10
    fine = "torch.load(p, weights_only=True); np.load(p, allow_pickle=False); model.eval(); re.compile(t)\n"
    assert not _faults(ast.parse(fine), "somewhere.py")
