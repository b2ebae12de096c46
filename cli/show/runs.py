"""What people see of what they ask about: a run directory, a network, an exported one, a store, a recipe."""

from __future__ import annotations

import shlex
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from causalprune.base.compute.shapes import shape_from_json, shape_text
from causalprune.base.errors import printable
from causalprune.base.specs import Headline

from .evaluations import evaluation_table, headline_form
from .store import store_info
from .tables import classes_line, counted, pairs, recipe_line, shown, table


def info(result: Any) -> Any:
    """What it is, where it comes from, whether it is intact."""
    kinds = {
        "run": _run_info,
        "checkpoint": _checkpoint_info,
        "state dict": _state_dict_info,
        "store": store_info,
        "export": _export_info,
        "recipe": _recipe_info,
    }
    parts = kinds[result.kind](result.details)
    if result.kind == "recipe":
        return Group(Text(printable(f"{result.kind} {result.path}")), *parts)
    health = [Text("healthy", style="green")] if not result.problems else []
    health += [Text(f"problem: {problem}", style="red") for problem in result.problems]
    health += [Text(f"warning: {warning}", style="yellow") for warning in result.warnings]
    return Group(Text(printable(f"{result.kind} {result.path}")), *parts, *health)


def _run_info(details: dict[str, Any]) -> list[Any]:
    parts: list[Any] = [pairs(_overview_lines(details))]
    files = [*details["artefacts"], *details["exports"]]  # codespell:ignore artefacts
    if files:
        made = table("file", "made from", "holds", "size", left=("made from",))
        for line in files:
            made.add_row(*(printable(text) for text in _file_row(line, details["overview"]["fits"])))
        parts += [Text(), made]
    if details["evaluation"] is not None:
        parts += [Text(), evaluation_table(details["evaluation"], details["evaluated"])]
    return parts


def _overview_lines(details: dict[str, Any]) -> dict[str, str]:
    """Made by which commands, of what, how large, and what is next."""
    whole = details["overview"]
    lines = {}
    if whole["command"]:
        lines["made by"] = f"{whole['command']} ({'finished' if whole['finished'] else 'not finished'})"
    else:
        # A stage of run has options that nobody typed.
        stages = [f"{a['stage']} {shlex.join(a['options'])}".strip() for a in _stages(details)]
        lines["made by"] = "; ".join(dict.fromkeys(stages))
    if details["recipe"] is not None:
        lines["recipe"] = recipe_line(details["recipe"])
    if details["sweep"] is not None:
        lines |= _sweep_lines(details["sweep"])
    if whole["model"]:
        lines["network"] = f"{whole['model']} on {whole['dataset']}"
    sizes = [f"{kind} {shown(size, 'bytes')}" for kind, size in whole["bytes"].items() if size]
    lines |= {"on the disk": ", ".join(sizes)} if sizes else {}
    if whole["next"]:
        again = whole["command"] and whole["next"].startswith("causalprune run ")
        # Where files are, and on which device, decides no result, and nothing remembers it.
        given = " (with --data-root, --from, --log and --device as they were given)"
        lines["next"] = whole["next"] + (given if again else "")
    return {name: text for name, text in lines.items() if text}


def _stages(details: dict[str, Any]) -> list[dict[str, Any]]:
    """The networks, each of which a stage made."""
    return [a for a in details["artefacts"] if "model" in a]  # codespell:ignore artefacts


def _file_row(line: dict[str, Any], fits: dict[str, str]) -> list[str]:
    folder = line["name"].rpartition("/")[0]
    origins = line["made_from"]
    if origins.get("fit") in fits:
        # A fit is of one recording, whose store needn't be named as well.
        origins = {role: name for role, name in origins.items() if role != "recording"}
    names = [name.removesuffix(".safetensors") for name in origins.values()]
    names = [f"fit {fits[name]}" if name in fits else name for name in names]
    made_from = ", ".join(name.removeprefix(f"{folder}/") if folder else name for name in names)
    if line["state"] != "done":
        made_from = f"{made_from} ({line['state']})".strip()
    if "format" in line:
        holds = line["format"]
    else:
        holds = f"{shown(line['sparsity'], 'share')} zero" if "sparsity" in line else line["rows"]
    return [line["name"], made_from, holds, shown(line["bytes"], "bytes")]


def _export_info(details: dict[str, Any]) -> list[Any]:
    made_from = [f"{role} {name}" for role, name in details["made_from"].items()]
    verified = {"bits": "read back bit for bit", "outputs": "read back, outputs within rounding"}
    lines = {
        "format": details["format"] + (", compact" if details["compact"] else ""),
        "parameters": f"{details['parameters']:,} of {details['parameters_before']:,}",
        "made from": ", ".join(made_from) or "nothing",
        "verified": verified.get(details["verified"], "no: ONNX Runtime was missing"),
        **classes_line(details["classes"]),
        "size": shown(details["file_bytes"], "bytes"),
        "with": ", ".join(f"{name} {version}" for name, version in details["versions"].items()),
    }
    return [pairs(lines)]


def _recipe_info(details: dict[str, Any]) -> list[Any]:
    made = Table(box=None, pad_edge=False, title=Text(details["summary"]), title_justify="left", title_style="")
    for column in ("option", "value"):
        made.add_column(column, no_wrap=True)
    made.add_column("source", overflow="fold")
    last = ""
    for choice in details["choices"]:
        made.add_row(choice["option"], choice["value"], "" if choice["source"] == last else choice["source"])
        last = choice["source"]
    return [made]


def _sweep_lines(s: dict[str, Any]) -> dict[str, str]:
    lines = {"sweep": f"{s['rows']:,} of {s['points']:,} rows, {s['done']:,} of {counted(s['cells'], 'cell')}"}
    lines |= {name.replace("_", "-"): ", ".join(values) for name, values in s["settings"].items()}
    lines["shared steps"] = ", ".join(f"{count} × {stage}" for stage, count in s["steps"].items()) or "none"
    return lines | ({"not done yet": ", ".join(s["unfinished"])} if s["unfinished"] else {})


def _checkpoint_info(details: dict[str, Any]) -> list[Any]:
    sparsity = shown(details["sparsity"], "share")
    lines = {
        "written by": shlex.join(filter(None, [details["stage"], *details["options"]])),
        "model": f"{details['model']['name']} for {shape_text(shape_from_json(details['model']['input_shape']))}",
        "data": details["data"]["name"],
        **_history_line(details),
        **classes_line(details["classes"]),
        "kept": f"{details['kept']:,} of {details['prunable']:,} prunable weights ({sparsity} sparse)",
        "size": shown(details["file_bytes"], "bytes"),
        "made from": ", ".join(f"{role} {digest[:12]}" for role, digest in details["inputs"].items()) or "nothing",
        "with": ", ".join(f"{name} {version}" for name, version in details["versions"].items()),
    }
    return [pairs(lines)]


def _state_dict_info(details: dict[str, Any]) -> list[Any]:
    sparsity = f"{shown(details['sparsity'], 'share')} sparse"
    lines = {
        "written by": shlex.join([details["stage"], *details["options"]]),
        "kept": f"{details['kept']:,} of {details['prunable']:,} prunable weights ({sparsity})"
        if details["layers"]
        else sparsity,
        "mask": details["mask"],
        "size": shown(details["file_bytes"], "bytes"),
        "made from": ", ".join(f"{role} {digest[:12]}" for role, digest in details["inputs"].items()),
        "with": ", ".join(f"{name} {version}" for name, version in details["versions"].items()),
    }
    return [pairs({name: text for name, text in lines.items() if text})]


def _history_line(details: dict[str, Any]) -> dict[str, str]:
    """How the training went that made a network; nothing where none did."""
    epochs = details["history"]
    if not epochs:
        return {}
    said = f"{counted(len(epochs), 'epoch')}, loss {epochs[0]['train_loss']:.4f} → {epochs[-1]['train_loss']:.4f}"
    best = next((line for line in epochs if line["epoch"] == details["best_epoch"]), None)
    if best is not None and details["validation"]:
        headline = Headline.of(details["validation"])
        score = shown(best["validation"], headline_form(headline))
        said += f", best validation {headline.label} {score} in epoch {best['epoch']}"
    return {"training": said}
