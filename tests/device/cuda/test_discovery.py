"""What is missing where there is no GPU, and which GPU a name is."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tensor_wasm.cli import checks
from tensor_wasm.cli.checks import Status
from tensor_wasm.config import load
from tensor_wasm.device import selection
from tensor_wasm.device.cuda import discovery
from tensor_wasm.device.cuda.discovery import Discovery, FoundGpu, Lack, find, understood
from tensor_wasm.device.cuda.driver import DriverError, GpuFacts
from tensor_wasm.device.cuda.probe import probe
from tensor_wasm.device.selection import choose
from tensor_wasm.errors import ConfigurationError, DeviceUnavailable

UUIDS = ("GPU-00112233-4455-6677-8899-aabbccddeeff", "GPU-ff112233-4455-6677-8899-aabbccddee00")
OLD = Lack("it is old", "use a newer one")


def facts(index: int) -> GpuFacts:
    return GpuFacts(index, f"GPU {index}", UUIDS[index], "sm_90", 80 << 30, 132, 232_448, 13)


BOTH = Discovery((FoundGpu(facts(0)), FoundGpu(facts(1))), None, 13000, 13050)
SECOND_ONLY = replace(BOTH, gpus=(FoundGpu(facts(0), OLD), FoundGpu(facts(1))))
UNASSEMBLED = replace(BOTH, gpus=(FoundGpu(replace(facts(0), assembler=0)),))
NONE = Discovery(lack=Lack("there is none", "put one in", is_plain=True))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "dev").mkdir()
    return tmp_path


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Whether there are the driver's library and the package."""
    there = {"library": False, "package": True}
    monkeypatch.setattr(discovery, "_has_library", lambda: there["library"])
    monkeypatch.setattr(discovery, "_has_package", lambda: there["package"])
    return there


@pytest.fixture(autouse=True)
def all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def put_on_bus(root: Path, vendor: str, kind: str) -> None:
    device = root / "sys/bus/pci/devices/0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text(vendor + "\n")
    (device / "class").write_text(kind + "\n")


# --- what is missing ----------------------------------------------------------------------------------------------


def test_without_a_gpu_and_a_driver_no_process_is_started(root, libraries, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    lack = find(root=root).lack
    assert "no NVIDIA GPU" in lack.text
    assert "libcuda.so.1" in lack.text
    assert lack.is_plain


@pytest.mark.parametrize(
    ("vendor", "kind", "is_gpu"),
    [
        ("0x10de", "0x030200", True),
        ("0x10de", "0x030000", True),
        ("0x10de", "0x040300", False),
        ("0x1002", "0x030000", False),
    ],
)
def test_a_gpu_without_a_driver_is_told_from_no_gpu(root, libraries, vendor, kind, is_gpu):
    put_on_bus(root, vendor, kind)
    lack = find(root=root).lack
    assert ("no driver for it" in lack.text) is is_gpu
    assert lack.is_plain is not is_gpu
    if is_gpu:
        assert "install NVIDIA's driver" in lack.advice


@pytest.mark.parametrize("name", ["nvidia0", "nvidiactl", "dxg"])
def test_a_driver_without_the_package_asks_for_that(root, libraries, name):
    (root / "dev" / name).touch()
    libraries["package"] = False
    lack = find(root=root).lack
    assert lack.text == "the package cuda-bindings is not installed"
    assert "tensor-wasm[cuda]" in lack.advice


def answered(root: Path, **answer: object) -> Lack:
    lack = understood(answer, os.environ, root).lack
    assert lack is not None
    return lack


def test_no_gpu_for_the_driver_is_explained_by_what_hides_it(root, monkeypatch):
    def lack() -> Lack:
        return answered(root, failure="driver", code=100, text="cuInit: CUDA_ERROR_NO_DEVICE (100)")

    assert "no /dev/nvidia0" in lack().text
    assert lack().is_plain
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES='' leaves no GPU" in lack().text
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert "CUDA_VISIBLE_DEVICES='7' leaves no GPU" in lack().text
    assert not lack().is_plain
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    (root / "dev/nvidiactl").touch()
    assert "/dev/nvidia-uvm is missing" in lack().text
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # said on purpose: nothing is missing
    assert "CUDA_VISIBLE_DEVICES='-1' leaves no GPU" in lack().text
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    (root / "dev/nvidia-uvm").touch()
    assert lack().text == "the driver finds no GPU"


def test_a_driver_that_has_no_gpus_is_one_without_a_gpu(root):
    assert "no GPU" in answered(root, driver=13000, bindings=13050, gpus=[]).text


@pytest.mark.parametrize("code", [100, 999, 304])
def test_files_that_may_not_be_opened_are_named(root, monkeypatch, code):
    for name in ("nvidia-uvm", "nvidia0", "nvidiactl"):
        (root / "dev" / name).touch()
    (root / "dev/nvidia0").chmod(0o660)
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "nvidia0")
    lack = answered(root, failure="driver", code=code, text="cuInit: …")
    assert lack.text == "/dev/nvidia0 may not be opened"
    assert "of group " in lack.advice
    assert "mode 660" in lack.advice


def test_a_file_that_a_control_group_forbids_is_named(root, monkeypatch):
    (root / "dev/nvidiactl").touch()
    (root / "dev/nvidia-uvm").touch()

    def refuse(path, flags):
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)
    assert answered(root, failure="driver", code=100, text="").text == "/dev/nvidiactl may not be opened"


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        ({"failure": "driver", "code": 803, "text": ""}, "different versions"),
        ({"failure": "driver", "code": 802, "text": ""}, "not ready"),
        ({"failure": "driver", "code": 46, "text": ""}, "busy"),
        ({"failure": "driver", "code": 2, "text": "cuInit: X (2)"}, "does not start (cuInit: X (2))"),
        ({"failure": "package", "text": "no module"}, "does not work (no module)"),
        ({"failure": "library", "text": "not found"}, "libcuda.so.1 does not work (not found)"),
        ({"failure": "process", "text": "Killed"}, "could not be asked (Killed)"),
        ({"driver": 12020, "bindings": 12080, "gpus": []}, "for CUDA 12.2"),
        ({"driver": 12090, "bindings": 13000, "gpus": []}, "for CUDA 12.9, the package cuda-bindings for 13.0"),
    ],
)
def test_each_failure_has_its_words_and_its_advice(root, answer, part):
    lack = answered(root, **answer)
    assert part in lack.text
    assert lack.advice
    assert not lack.is_plain


def test_a_long_text_is_cut(root):
    assert len(answered(root, failure="library", text="x" * 10_000).text) < 400


class Driver:
    """So much of the bindings as the probe needs."""

    def __init__(self, sm: str = "sm_90", **attributes: int) -> None:
        self.sm, self.attributes = sm, attributes

    def version(self) -> int:
        return 13000

    def bindings_version(self) -> int:
        return 13050

    def count(self) -> int:
        return 2

    def facts(self, index: int) -> GpuFacts:
        return replace(facts(index), sm=self.sm)

    def attribute(self, index: int, name: str) -> int:
        return self.attributes.get(name, 0 if name == "COMPUTE_MODE" else 1)


@pytest.mark.parametrize(
    ("driver", "part"),
    [
        (Driver(), None),
        (Driver("sm_121"), None),
        (Driver("sm_61"), "older than Volta"),
        (Driver(COMPUTE_MODE=2), "Prohibited"),
        (Driver(COMPUTE_MODE=3), None),
        (Driver(VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED=0), "map memory"),
        (Driver(HOST_REGISTER_SUPPORTED=0), "memory of processes"),
    ],
)
def test_what_a_gpu_lacks(root, driver, part):
    found = understood(probe(lambda: driver), {}, root)
    assert [gpu.facts.uuid for gpu in found.gpus] == list(UUIDS)
    assert (found.driver_version, found.bindings_version) == (13000, 13050)
    for gpu in found.gpus:
        assert gpu.lack is None if part is None else part in gpu.lack.text


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (DriverError(100, "CUDA_ERROR_NO_DEVICE", "cuInit"), "driver"),
        (ImportError("no module"), "package"),
        (RuntimeError("Function cuInit not found"), "library"),
    ],
)
def test_the_probe_always_answers(error, failure):
    def fail():
        raise error

    answer = probe(fail)
    assert answer["failure"] == failure
    assert answer["text"] == str(error)


BROKEN = {
    "raises": "raise ImportError('no such symbol')",
    "ends": "import os\nos._exit(9)",
    "talks": "print('noise', flush=True)\nraise ImportError('no such symbol')",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "part"), [("raises", "no such symbol"), ("ends", "ended with 9"), ("talks", "no such")]
)
def test_a_package_that_breaks_its_process_is_explained(tmp_path, root, libraries, monkeypatch, how, part):
    libraries["library"] = True
    package = tmp_path / "packages" / "cuda" / "bindings"
    package.mkdir(parents=True)
    for file in (package.parent / "__init__.py", package / "__init__.py"):
        file.write_text("")
    (package / "driver.py").write_text(BROKEN[how])
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    assert part in find(root=root).lack.text


@pytest.mark.slow
def test_a_process_that_does_not_end_is_given_up(tmp_path, root, libraries, monkeypatch):
    libraries["library"] = True
    monkeypatch.setattr(sys, "executable", str(tmp_path / "sleeper"))
    Path(sys.executable).write_text("#!/bin/sh\nexec sleep 1000\n")
    Path(sys.executable).chmod(0o755)
    assert "does not answer within 0.2 s" in find(root=root, limit_s=0.2).lack.text


def test_an_interpreter_that_is_not_there_is_explained(tmp_path, root, libraries, monkeypatch):
    libraries["library"] = True
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    assert "could not be asked" in find(root=root).lack.text


# --- which one ----------------------------------------------------------------------------------------------------


def test_auto_takes_the_first_that_can_be_used():
    assert choose("auto", lambda: BOTH).gpu == facts(0)
    assert choose("auto", lambda: SECOND_ONLY).gpu == facts(1)


def test_auto_says_why_it_takes_the_cpu():
    choice = choose("auto", lambda: NONE)
    assert (choice.gpu, choice.reason, choice.is_lacking) == (None, "there is none: put one in", False)
    choice = choose("auto", lambda: replace(SECOND_ONLY, gpus=SECOND_ONLY.gpus[:1]))
    assert (choice.gpu, choice.reason, choice.is_lacking) == (None, "cuda:0: it is old: use a newer one", True)


def test_the_cpu_is_taken_without_a_look():
    def look():
        raise AssertionError

    assert choose("cpu", look).gpu is None


@pytest.mark.parametrize(
    ("name", "index"),
    [("cuda:0", 0), ("cuda:1", 1), ("cuda:01", 1), (f"cuda:{UUIDS[1]}", 1), (f"cuda:GPU-{UUIDS[1][4:].upper()}", 1)],
)
def test_a_gpu_goes_by_number_or_uuid(name, index):
    assert choose(name, lambda: BOTH).gpu == facts(index)


def test_one_that_is_not_there_names_those_that_are():
    with pytest.raises(DeviceUnavailable, match=f"cuda:2: there is no such GPU: there is cuda:0 or cuda:{UUIDS[0]}, "):
        choose("cuda:2", lambda: BOTH)
    with pytest.raises(DeviceUnavailable, match="there is none: put one in"):
        choose("cuda:0", lambda: NONE)
    with pytest.raises(DeviceUnavailable, match="cuda:0: it is old: use a newer one"):
        choose("cuda:0", lambda: SECOND_ONLY)


@pytest.mark.parametrize("name", ["", "cuda", "cuda:", "cuda:-1", "cuda:GPU-1", "gpu", "cuda:0\n", "x" * 5000])
def test_a_name_of_no_device_is_refused(name):
    with pytest.raises(ConfigurationError, match="names no device") as caught:
        choose(name, lambda: BOTH)
    assert not isinstance(caught.value, DeviceUnavailable)
    assert len(caught.value.message) < 200


def test_a_node_names_the_setting_and_logs_why_it_takes_the_cpu(monkeypatch, caplog):
    monkeypatch.setattr(selection, "CpuDevice", lambda *_: "the CPU")
    monkeypatch.setattr(selection.choose, "__defaults__", (lambda: NONE,))
    with pytest.raises(DeviceUnavailable, match="TENSOR_WASM_DEVICE=cuda:0: there is none"):
        selection.open_device("cuda:0", None, None)
    with caplog.at_level("INFO", "tensor_wasm.device"):
        assert selection.open_device("auto", None, None) == "the CPU"
    assert "kernels run on the CPU: there is none: put one in" in caplog.text


# --- doctor -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "found", "status", "part"),
    [
        ("cpu", BOTH, Status.OK, "skipped: TENSOR_WASM_DEVICE=cpu"),
        ("auto", NONE, Status.OK, "skipped: there is none"),
        ("auto", Discovery(lack=OLD), Status.WARN, "none that can be used: it is old"),
        ("auto", replace(SECOND_ONLY, gpus=SECOND_ONLY.gpus[:1]), Status.WARN, "none that can be used: it is old"),
        ("auto", SECOND_ONLY, Status.OK, f"cuda:1, GPU 1 (sm_90, 80.0 GiB, {UUIDS[1]}); driver for CUDA 13.0 and"),
        ("auto", UNASSEMBLED, Status.WARN, "cuda:0, GPU 0"),
        ("cuda:0", SECOND_ONLY, Status.FAIL, "cuda:0: it is old"),
        ("cuda:0", NONE, Status.FAIL, "cuda:0: there is none"),
        (f"cuda:{UUIDS[1]}", BOTH, Status.OK, "cuda:1, GPU 1"),
    ],
)
def test_doctors_line(tmp_path, monkeypatch, device, found, status, part):
    monkeypatch.setattr(discovery, "find", lambda: found)
    config = load({"TENSOR_WASM_HOME": str(tmp_path), "TENSOR_WASM_DEVICE": device}).config
    was, detail, advice = checks._gpu(config)
    assert was is status
    assert detail.startswith(part)
    assert bool(advice) is (status is not Status.OK)
    assert ("the driver has to assemble kernels" in detail) is (found is UNASSEMBLED)
