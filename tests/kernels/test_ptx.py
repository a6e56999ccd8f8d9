# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The kernels cross-compiled for Hopper: what the compiler made of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from ptx_assembler import PtxError, Resources, assemble, assemble_as_drivers, kernels

import mojo_build

TILES = ("64x16", "128x48")
STREAMS = ("16x4", "16x8", "16x24")
PREFILL = ("256x96", "192x192")
EPILOGUES = ("store", "swiglu", "scatter")

Assembler = Callable[[str], Resources]
ASSEMBLERS = pytest.mark.parametrize("assembler", [assemble, assemble_as_drivers])


@pytest.fixture(scope="module")
def ptx(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The PTX of every kernel of ``mxfp4_moe`` by name."""
    return compiled("all_kernels", repository, tmp_path_factory.mktemp("ptx"))


@pytest.fixture(scope="module")
def dense_ptx(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The PTX of the kernels of few rows of ``dense_linear`` by name."""
    return compiled("dense_kernels", repository, tmp_path_factory.mktemp("dense_ptx"))


def compiled(program: str, repository: Path, folder: Path) -> dict[str, str]:
    """Builds one of the programs beside this file and returns its kernels."""
    mojo_build.build(
        Path(__file__).with_name(f"{program}.mojo"),
        repository / "overlay/max/kernels/src",
        folder / f"{program}.s",
        "--target-accelerator=sm_90a",
        "--emit",
        "asm",
    )
    return kernels(folder)


def of(ptx: dict[str, str], name: str) -> str:
    """The one kernel whose name starts with ``name``."""
    (text,) = (text for kernel, text in ptx.items() if kernel.startswith(name))
    return text


def test_every_kernel_is_there(ptx: dict[str, str]) -> None:
    matmuls = {f"mxfp4_moe_matmul_{tile}_{end}" for tile in TILES for end in EPILOGUES}
    streams = {f"mxfp4_moe_stream_{rows}_{end}" for rows in STREAMS for end in EPILOGUES}
    prefill = {f"mxfp4_moe_prefill_{tile}_{end}" for tile in PREFILL for end in EPILOGUES}
    others = {"route_1", "route_4", "route_16", "select_top4", "select_and_route_top4"}
    others |= {"combine_top4", "to_panels", "gather_rows_gather"}
    for_few = {"slices_top4_rows1", "slices_top4_rows2", "sum_parts_top4"}
    layers = {f"mxfp4_moe_{name}_{source}" for name in for_few for source in ("logits", "choices")}
    expected = {*layers, *matmuls, *streams, *prefill, *(f"mxfp4_moe_{name}" for name in others)}
    # The compiler appends a hash.
    assert {name.rpartition("_")[0] for name in ptx} == expected


@ASSEMBLERS
def test_nothing_spills_and_products_overlap(ptx: dict[str, str], assembler: Assembler) -> None:
    spilling = {}
    for name, text in ptx.items():
        resources = assembler(text)
        print(name, resources)
        if any(resources[1:]):
            spilling[name] = resources
    assert not spilling


@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("tile", TILES)
def test_weights_go_from_memory_to_registers_to_tensor_cores(
    ptx: dict[str, str], tile: str, epilogue: str
) -> None:
    text = of(ptx, f"mxfp4_moe_matmul_{tile}_{epilogue}")
    assert "ld.global.nc.v4.b32" in text
    assert "mul.rn.bf16x2" in text
    assert re.search(r"mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.bf16\.bf16\.f32", text)
    # Shared memory gets copies of activations, and from registers row numbers alone: no weights.
    assert "cp.async.cg.shared.global" in text
    assert set(re.findall(r"\bst\.shared\S*", text)) <= {"st.shared.b32", "st.shared.v2.b32"}


@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("rows", STREAMS)
def test_streams_expand_in_registers(ptx: dict[str, str], rows: str, epilogue: str) -> None:
    text = of(ptx, f"mxfp4_moe_stream_{rows}_{epilogue}")
    # Packed weights pass through shared memory as they are, and no thread holds what is copied.
    assert "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes" in text
    assert "cp.async.cg" not in text
    assert "mul.rn.bf16x2" in text
    assert re.search(r"mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.bf16\.bf16\.f32", text)
    # So do activations, which come out as fragments. From registers it gets row tiles, and the
    # zeros that stand for rows of other experts.
    assert "ldmatrix.sync.aligned.m8n8.x4.shared.b16" in text
    assert set(re.findall(r"\bst\.shared\S*", text)) == {"st.shared.b32", "st.shared.v4.b32"}
    # Programmatic dependent launch.
    assert "griddepcontrol.wait" in text
    assert "griddepcontrol.launch_dependents" in text


@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("tile", PREFILL)
def test_prefill_expands_in_registers(ptx: dict[str, str], tile: str, epilogue: str) -> None:
    text = of(ptx, f"mxfp4_moe_prefill_{tile}_{epilogue}")
    tile_rows = int(tile.partition("x")[2])
    # Weights are A, from registers: four of them, and not a descriptor.
    registers: set[str] = set()
    for rows in range(8, tile_rows + 1, 8):
        from_registers = re.findall(
            rf"wgmma\.mma_async[^;]*m64n{rows}k16[^;]*\}}\s*,\s*\{{(%r\d+(?:, %r\d+){{3}})\}}", text
        )
        # Four a step, of two steps.
        assert len(from_registers) == 8, rows
        registers.update(register for four in from_registers for register in four.split(", "))
    # Products in flight read the one set while the next step's weights go to the other. The
    # compiler does not know what they read; with fewer registers it would overwrite that.
    assert len(registers) == 32
    assert "mul.rn.bf16x2" in text
    # Packed weights and rows pass through shared memory as they are, by the copy engine, and the
    # only numbers put there are the schedule's and what the epilogue takes.
    assert "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx" in text
    assert "cp.async.cg" not in text
    assert set(re.findall(r"\bst\.shared\S*", text)) <= {"st.shared.b32", "st.shared.v2.b32"}
    assert "setmaxnreg.inc" in text
    assert "griddepcontrol.wait" in text


@ASSEMBLERS
def test_dense_layers_of_few_rows_do_not_spill(
    dense_ptx: dict[str, str], assembler: Assembler
) -> None:
    # Three layers, each for 8, 16, 32 and 64 rows.
    assert len(dense_ptx) == 12
    for name, text in dense_ptx.items():
        resources = assembler(text)
        print(name, resources)
        assert not any(resources[1:]), name
        # The copy engine starts with weights before the kernel before has ended. Sums go to
        # other blocks' shared memory, which takes no fence of the GPU; q, k and v cut no K.
        before, wait, after = text.partition("griddepcontrol.wait")
        assert wait
        assert "cp.async.bulk.tensor.2d.shared::cluster.global" in before
        assert "wgmma.mma_async" in after
        assert ("st.async" in after) == ("5120x2880" not in name)
        assert "barrier.cluster.arrive.aligned" not in text


@ASSEMBLERS
def test_assemblers_report_serialized_products(assembler: Assembler) -> None:
    """A loop of ``wgmma`` whose sums are read before the wait, so that the compiler waits."""
    sums = ", ".join(f"%f{i}" for i in range(4))

    def program(before_the_wait: str) -> str:
        return f"""
            .version 8.0
            .target sm_90a
            .address_size 64
            .visible .entry k(.param .b64 p) {{
                .reg .f32 %f<4>;
                .reg .b64 %p, %d;
                .reg .b32 %i;
                .reg .pred %more;
                ld.param.b64 %p, [p];
                ld.global.b64 %d, [%p];
                ld.global.v4.f32 {{{sums}}}, [%p+16];
                mov.b32 %i, 0;
            AGAIN:
                wgmma.fence.sync.aligned;
                wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16
                    {{{sums}}}, %d, %d, 1, 1, 1, 0, 0;
                wgmma.commit_group.sync.aligned;
                {before_the_wait}
                wgmma.wait_group.sync.aligned 1;
                add.s32 %i, %i, 1;
                setp.lt.s32 %more, %i, 10;
                @%more bra AGAIN;
                wgmma.wait_group.sync.aligned 0;
                st.global.v4.f32 [%p+16], {{{sums}}};
                ret;
            }}"""

    assert not assembler(program("")).serialized
    assert assembler(program("st.global.f32 [%p+64], %f0;")).serialized


@ASSEMBLERS
def test_assemblers_report_spills_and_errors(assembler: Assembler) -> None:
    """What the other tests rely on: a kernel short of registers spills, and nonsense is refused."""
    values = 64
    body = "\n".join(
        [f".reg .f32 %f<{values}>;", ".reg .b64 %p;", "ld.param.b64 %p, [p];"]
        + [f"ld.volatile.global.f32 %f{i}, [%p+{4 * i}];" for i in range(values)]
        + [f"st.volatile.global.f32 [%p+{4 * i}], %f{values - 1 - i};" for i in range(values)]
    )
    head = ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .b64 p)"
    assert assembler(f"{head} {{\n{body}\nret;\n}}").spill_store_bytes == 0
    assert assembler(f"{head} .maxnreg 24 {{\n{body}\nret;\n}}").spill_store_bytes > 0
    with pytest.raises(PtxError, match="k"):
        assembler(f"{head} {{ nonsense; }}")
