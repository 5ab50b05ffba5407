"""Run a script on this machine's GPU, or on the CUDA device of the tests if torch is not a CUDA build.

python -m benchmarks.gpu.rehearsal SCRIPT ARGUMENTS
"""

import runpy
import sys

from tests.fake_cuda.library import missing, torch_folder


def main() -> None:
    if (torch_folder() / "lib" / "libtorch_cuda.so").exists():
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
        return
    if reason := missing():
        raise SystemExit(f"no rehearsal: {reason}")
    from tests.fake_cuda.__main__ import main as run_on_fake_device

    sys.exit(run_on_fake_device(["--report", "/dev/null", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
