"""Packages that only some commands need: which extra of bertloom installs each, and the line for a user who lacks it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

EXTRAS = {
    "pipeline": ("apache_beam", "mwparserfromhell"),
    "train": ("matplotlib", "psutil", "safetensors", "scipy", "sklearn", "torch", "webdataset"),
    "chinese": ("rjieba",),
    "ftfy": ("ftfy",),
    "icu": ("icu4py",),
    "langid": ("py3langid",),
    "markup": ("docutils", "markdown_it", "mdit_py_plugins"),
    "unigram": ("sentencepiece",),
    "browse": ("starlette", "uvicorn"),
    "web": ("brotli", "resiliparse", "warcio"),
    "s3": ("s3fs",),
    "gcs": ("gcsfs",),
    "gcp": ("google_auth_httplib2",),  # Beam imports it and the others of the extra
    "http": ("aiohttp",),
    "dask": ("dask", "distributed"),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
}
"""Extra in pyproject.toml -> the modules that it installs and that bertloom imports."""
EXTRA_OF = {module: extra for extra, modules in EXTRAS.items() for module in modules}


def require(what: str, *modules: str) -> None:
    """Raise ValueError if one of these modules is not installed. what: what needs them, such as `bertloom preprocess`."""
    missing = [EXTRA_OF[module] for module in modules if not find_spec(module)]
    if missing:
        raise ValueError(needs(what, *dict.fromkeys(missing)))


@contextmanager
def needed_by(what: str) -> Iterator[None]:
    """Turn the error of an import in the block into `needs(what, the extra that installs the module)`."""
    try:
        yield
    except ModuleNotFoundError as error:
        if extra := extra_of(error):
            raise ValueError(needs(what, extra)) from None
        raise


def extra_of(error: ModuleNotFoundError) -> str | None:
    """Return the extra that installs the module which was not found, None if no extra does."""
    return EXTRA_OF.get((error.name or "").partition(".")[0])


def needs(what: str, *extras: str) -> str:
    """Return the sentence which says that `what` needs these extras, and how to install them."""
    names = " and ".join(f'"{extra}"' for extra in extras)
    return f"{what} needs the extra{'s' * (len(extras) > 1)} {names}: pip install {installed_as(','.join(extras))}"


def installed_as(extras: str) -> str:
    """Return what pip is asked for, to install bertloom with these extras: in a checkout, its folder."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    is_checkout = os.path.isfile(os.path.join(root, "pyproject.toml"))
    return f"-e '.[{extras}]'" if is_checkout else f"'bertloom[{extras}]'"
