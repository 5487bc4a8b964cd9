"""Commands that look at things: data sets, gradients, graphs, where backends part."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import trine
from trine import atomic, nn
from trine.autograd import Node
from trine.cli import setup
from trine.cli.graph_svg import graph_svg
from trine.cli.output import console, emit_json, notes, table
from trine.cli.train import load_splits, trainable_system
from trine.cli.wrong_ops import wrong_ops
from trine.models.registry import System


def data(data_dir: Path | None, *, json: bool) -> None:
    """List data sets."""
    from trine.data import describe

    rows = describe(data_dir=str(data_dir) if data_dir else None)
    if json:
        emit_json(rows)
        return
    table(
        None,
        ("name", "samples", "shape", "classes", "here", "licence"),
        [
            (r["name"], r["samples"], r["shape"], r["classes"], r["here"], r["licence"])
            for r in rows
        ],
    )


def small_batch(
    system: System, data_dir: Path | None, dtype: str, count: int = 4
) -> tuple[nn.Module, trine.Tensor, trine.Tensor]:
    """Return a freshly made model and a few training samples on the default backend."""
    splits = load_splits(system, None, data_dir)
    assert system.build is not None  # the caller asked for a trainable system
    model = system.build().to(trine.default_backend().name)
    model.to(dtype=dtype)
    x, y = splits.train.x[:count], splits.train.y[:count]
    return model, setup.as_model_input(x, dtype), setup.as_model_input(y, dtype)


def require_gradients(command: str, name: str, model: nn.Module) -> None:
    """Raise ValueError for a model that learns by a rule of its own, not by gradients."""
    if isinstance(model, nn.Learner):
        raise ValueError(
            f"[{command}] expected a system that learns by gradients, got {name!r}, which learns by a "
            f"rule of its own. Run: trine train {name}"
        )


def gradcheck(
    name: str,
    *,
    backend: str,
    device: int,
    data_dir: Path | None,
    seed: int,
    kernel_files: tuple[Path, ...],
    json: bool,
) -> None:
    """Check a model's gradients; exits with 1 if they are wrong."""
    setup.load_kernel_files(kernel_files)
    system = trainable_system(name)
    chosen, _ = setup.choose_backend(backend, device, system.parameters)
    trine.seed(seed)
    count = 4 if system.hold is None else 1  # detectors are slow, and a thousand costs are taken
    model, x, target = small_batch(system, data_dir, "float64", count)
    require_gradients("gradcheck", name, model)
    model.eval()
    loss = system.loss
    assert loss is not None  # trainable systems have one
    named = dict(model.named_parameters())
    with nullcontext() if system.hold is None else system.hold(model, x):
        result = trine.gradcheck(
            lambda *_: loss(model(x), target), list(named.values()), names=list(named),
            raise_exception=False,
        )  # fmt: skip
        faults = wrong_ops(model, x, target, loss) if result.wrong else []
    if json:
        emit_json(
            {
                "model": name, "backend": chosen.name, "ok": bool(result), "report": str(result),
                "wrong": [{"op": f.op, "layer": f.layer, "report": f.report} for f in faults],
            }
        )  # fmt: skip
    else:
        lines = [f"{name} on {chosen.name}: {result}"] + [
            f"The backward rule of {fault.op} is wrong, in {fault.layer}: {fault.report}"
            for fault in faults
        ]
        if result.wrong and not faults:
            lines.append(
                "Checked by itself, each op that the model records has a right backward rule."
            )
        for line in lines:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if not result:
        raise SystemExit(1)


def compare(
    name: str,
    backends: str,
    *,
    data_dir: Path | None,
    seed: int,
    dtype: str,
    kernel_files: tuple[Path, ...],
    json: bool,
) -> None:
    """Compare two backends layer by layer; exits with 1 if they part."""
    from trine.compare import compare_backends

    setup.load_kernel_files(kernel_files)
    system = trainable_system(name)
    names = [part.strip() for part in backends.split(",")]
    if len(names) != 2:
        raise ValueError(
            f"[compare] expected two backends separated by a comma, got {backends!r}. For example "
            "numpy,numba."
        )
    for part in names:
        trine.get_backend(part)
    with trine.use(names[0]):
        trine.seed(seed)
        model, x, target = small_batch(system, data_dir, dtype, count=16)
        require_gradients("compare", name, model)
        result = compare_backends(model, x, target, loss=system.loss, backends=(names[0], names[1]))
    if json:
        first = None if result.first is None else result.first.name
        emit_json(
            {
                "model": name, "backends": names, "agree": bool(result), "first": first,
                "report": str(result),
            }
        )  # fmt: skip
    else:
        console.print(str(result), highlight=False, markup=False)
    if not result:
        raise SystemExit(1)


def graph(name: str, *, dot: bool, svg: Path | None, json: bool) -> None:
    """Show the graph that a model's loss records."""
    system = trainable_system(name)
    with trine.use("numpy"):
        trine.seed(0)
        model, x, target = small_batch(system, None, "float32", count=2)
        require_gradients("graph", name, model)
        assert system.loss is not None  # trainable systems have one
        loss = system.loss(model(x), target)
    names = {id(p): path for path, p in model.named_parameters()}
    nodes = trace(loss, names)
    if svg is not None:
        atomic.write_text(svg, graph_svg(f"{name}: the recorded ops of its loss", nodes))
        notes.print(f"drawing: {svg}", highlight=False)
    if json:
        emit_json(nodes)
    elif dot:
        print("digraph {")
        for node in nodes:
            print(f'  {node["id"]} [label="{node["op"]}\\n{node["shape"]}"];')
            for parent in node["inputs"]:
                source = parent if isinstance(parent, int) else f'"{parent}"'
                print(f"  {source} -> {node['id']};")
        print("}")
    else:
        table(
            f"{name}: {len(nodes)} recorded ops, first to last",
            ("id", "op", "output", "from"),
            [(n["id"], n["op"], n["shape"], ", ".join(str(i) for i in n["inputs"])) for n in nodes],
        )


def trace(loss: trine.Tensor, names: dict[int, str]) -> list[dict[str, Any]]:
    """Return the nodes behind a tensor in the order in which they were recorded."""
    found: dict[int, Node] = {}
    stack = [loss.node]
    while stack:
        node = stack.pop()
        if node is None or id(node) in found:
            continue
        found[id(node)] = node
        stack.extend(edge[0] for edge in node.parents if edge and isinstance(edge[0], Node))
    ordered = sorted(found.values(), key=lambda node: node.order)
    number = {id(node): i for i, node in enumerate(ordered)}
    return [
        {
            "id": number[id(node)],
            "op": node.op.name,
            "shape": str(node.metas[0].shape),
            "inputs": [
                number[id(edge[0])] if isinstance(edge[0], Node) else names.get(id(edge[0]), "leaf")
                for edge in node.parents
                if edge is not None
            ],
        }
        for node in ordered
    ]
