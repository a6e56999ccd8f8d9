# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Which kernel package is found, and which are refused."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path

import pytest
from max.graph import DeviceRef

from max.nn import dense_linear, kernel_package, mxfp4_moe
from max.nn.kernel_package import KernelPackageError, find_kernel_package
from max.pipelines.architectures.gpt_oss.quantization_format import kernel_extensions

PACKAGE = "mxfp4_moe"
PACKAGE_FILE = f"{PACKAGE}.mojoc"
CONTENT = b"a compiled package"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in the only listed folder, and an installation without one of its own."""
    package: Path = tmp_path / "kernels" / PACKAGE_FILE
    package.parent.mkdir()
    package.write_bytes(CONTENT)
    module = tmp_path / "site-packages" / "max" / "nn" / "kernel_package.py"
    monkeypatch.setattr(kernel_package, "__file__", str(module))
    monkeypatch.setattr(kernel_package, "MANIFEST", tmp_path / "kernel_packages.json")
    monkeypatch.setenv(kernel_package.IMPORT_PATH_VARIABLE, str(package.parent))
    return package


def write_manifest(**changes: str) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    content = {
        "max_version": importlib.metadata.version("max-core"),
        "mojo_version": importlib.metadata.version("mojo"),
        "packages": {PACKAGE: {"sources_sha256": "0" * 64, "package_sha256": digest}},
    }
    kernel_package.MANIFEST.write_text(json.dumps(content | changes))


def test_every_package_is_found() -> None:
    assert dense_linear.kernel_package_path().name == "dense_linear.mojoc"
    assert mxfp4_moe.kernel_package_path().name == "mxfp4_moe.mojoc"


def test_without_a_manifest_the_package_is_taken_as_it_is(package: Path) -> None:
    assert find_kernel_package(PACKAGE) == package


def test_a_package_that_matches_the_manifest_is_taken(package: Path) -> None:
    write_manifest()
    assert find_kernel_package(PACKAGE) == package


def test_the_variable_lists_folders_and_files(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = f"{package.parent.parent / 'empty'}, {package}"
    monkeypatch.setenv(kernel_package.IMPORT_PATH_VARIABLE, listed)
    assert find_kernel_package(PACKAGE) == package


@pytest.mark.parametrize("layout", ["site-packages/modular/lib/mojo", "lib/mojo"])
def test_the_installation_is_searched_after_the_variable(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    site_packages = tmp_path / "lib" / "python3" / "site-packages"
    module = site_packages / "max" / "nn" / "kernel_package.py"
    monkeypatch.setattr(kernel_package, "__file__", str(module))
    prefix = site_packages.parent if layout.startswith("site-packages") else tmp_path
    installed = prefix / layout / PACKAGE_FILE
    installed.parent.mkdir(parents=True)
    installed.write_bytes(CONTENT)
    assert find_kernel_package(PACKAGE) == package
    monkeypatch.delenv(kernel_package.IMPORT_PATH_VARIABLE)
    assert find_kernel_package(PACKAGE) == installed


def test_a_missing_package_is_named_with_the_folders_searched(package: Path) -> None:
    package.unlink()
    with pytest.raises(
        KernelPackageError, match=rf"mxfp4_moe\.mojoc is missing .*{package.parent}"
    ):
        find_kernel_package(PACKAGE)


def test_a_stale_package_is_named(package: Path) -> None:
    write_manifest()
    package.write_bytes(CONTENT + b"!")
    with pytest.raises(KernelPackageError, match=rf"{package} is stale"):
        find_kernel_package(PACKAGE)


def test_another_version_of_max_is_named(package: Path) -> None:
    write_manifest(max_version="26.6.0")
    installed = importlib.metadata.version("max-core")
    with pytest.raises(
        KernelPackageError, match=rf"built for MAX 26\.6\.0 but max-core is {installed}"
    ):
        find_kernel_package(PACKAGE)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"max_version": "26.7.0", "packages": {}}'])
def test_a_damaged_manifest_is_named(package: Path, text: str) -> None:
    kernel_package.MANIFEST.write_text(text)
    with pytest.raises(
        KernelPackageError, match=r"kernel_packages\.json does not describe .* mxfp4_moe"
    ):
        find_kernel_package(PACKAGE)


@pytest.mark.parametrize("stale", ["dense_linear", "mxfp4_moe"])
def test_a_stale_kernel_package_is_refused_before_the_graph_is_built(
    tmp_path: Path, hopper: None, monkeypatch: pytest.MonkeyPatch, stale: str
) -> None:
    found = {
        "dense_linear": dense_linear.kernel_package_path(),
        "mxfp4_moe": mxfp4_moe.kernel_package_path(),
    }
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()}
    digests[stale] = "0" * 64
    manifest = tmp_path / "kernel_packages.json"
    content = {
        "max_version": importlib.metadata.version("max-core"),
        "packages": {name: {"package_sha256": digest} for name, digest in digests.items()},
    }
    manifest.write_text(json.dumps(content))
    monkeypatch.setattr(kernel_package, "MANIFEST", manifest)
    with pytest.raises(KernelPackageError, match=rf"{stale}\.mojoc is stale"):
        kernel_extensions("mxfp4", DeviceRef.GPU())
