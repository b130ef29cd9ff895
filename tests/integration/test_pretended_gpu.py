"""No update mixes tensors of a GPU with the CPU's, and none reads one: every method on a GPU that is pretended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, Optional

import pytest
import torch

from tests.integration.running import ROOT

pytestmark = pytest.mark.slow
SOURCE = Path(__file__).with_name("pretended_gpu.cpp")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Optional[str]]:
    """What went wrong in each case, ``None`` for nothing."""
    compiler, home = shutil.which("g++"), Path(torch.__file__).parent
    if torch.version.cuda is not None or compiler is None:
        pytest.skip("torch has CUDA of its own" if compiler else "no g++ to build the pretended device with")
    library = tmp_path_factory.mktemp("device") / "pretended_gpu.so"
    words = [compiler, "-shared", "-fPIC", "-std=c++20", f"-I{home}/include", SOURCE, "-o", library]
    words += [f"-L{home}/lib", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{home}/lib"]
    built = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if built.returncode != 0:
        pytest.skip(f"this torch asks a device for other things: {built.stderr.strip().splitlines()[0]}")
    run = [sys.executable, "-m", "tests.integration.pretended_gpu"]
    env = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(run, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(line) for line in done.stdout.splitlines())


def test_what_must_not_be_is_seen(outcomes) -> None:
    assert "DataDependent" in outcomes["a read"] and "cuda:0 and cpu" in outcomes["a mixture"]


@pytest.mark.parametrize("head", ["label_smoothed", "sentence_prediction"])
def test_every_method_stays_on_its_device(outcomes, head) -> None:
    of_head = {case: found for case, found in outcomes.items() if head in case}
    assert len(of_head) > 40 and {case: found for case, found in of_head.items() if found is not None} == {}
