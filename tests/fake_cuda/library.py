"""The C++ half: built once for each version of torch into a cache folder, and loaded before torch."""

import ctypes
import fcntl
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bertloom" / "fake_cuda"
OPTIONS = ("-shared", "-fPIC", "-std=c++20", "-O1", "-w")


def missing() -> str:
    """Return why this machine cannot have the fake device; an empty text if it can."""
    if sys.platform != "linux":
        return "the fake CUDA device is built on Linux only"
    if not shutil.which("g++"):
        return "the fake CUDA device is built with g++, which is not installed"
    if (torch_folder() / "lib" / "libtorch_cuda.so").exists():
        return "this torch is a CUDA build, which the fake device cannot replace"
    return ""


def torch_folder() -> Path:
    """Return the folder of torch, without importing it."""
    spec = importlib.util.find_spec("torch")
    assert spec and spec.origin
    return Path(spec.origin).parent


def build() -> Path:
    """Return the path of the library, which is built if there is none of these sources and this torch.

    Processes that need it at the same time build it once: the first one holds a lock.
    """
    sources = sorted([*HERE.glob("*.cpp"), *HERE.glob("*.h")])
    content = [version("torch").encode(), " ".join(OPTIONS).encode(), *(path.read_bytes() for path in sources)]
    path = CACHE / f"{hashlib.sha256(b'|'.join(content)).hexdigest()[:24]}.so"
    if path.exists():
        return path
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            torch, new = torch_folder(), path.with_suffix(f".{os.getpid()}")
            folders = [f"-isystem{torch / 'include'}", f"-L{torch / 'lib'}", f"-Wl,-rpath,{torch / 'lib'}"]
            command = ["g++", *OPTIONS, str(HERE / "operators.cpp"), "-o", str(new), *folders, "-ltorch_cpu", "-lc10"]
            subprocess.run(command, check=True)
            new.rename(path)
    return path


@functools.cache
def load() -> ctypes.CDLL:
    """Load the library into this process, which has not imported torch, and return it."""
    assert "torch" not in sys.modules, "load the fake CUDA device before torch, which looks for CUDA's hooks once"
    library = ctypes.CDLL(str(build()), mode=ctypes.RTLD_GLOBAL)
    for name in ("num_operators", "num_synchronizations", "num_replays", "allocated", "peak", "stream"):
        getattr(library, f"fake_cuda_{name}").restype = ctypes.c_int64
    library.fake_cuda_set_stream.argtypes = [ctypes.c_int, ctypes.c_int64]
    library.fake_cuda_resize_storage.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    library.fake_cuda_register()
    assert library.fake_cuda_is_registered()
    return library
