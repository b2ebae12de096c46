"""Run the benchmarks one after the other, and print the first table of docs/performance.md.

    python benchmarks/table.py [--data-root DIR] [--stores DIR] [--output DIR] [--only NAME ...]
    python benchmarks/table.py --smoke

Each part is a script in a process of its own. What it prints is kept in OUTPUT/NAME.txt, and OUTPUT/table.md is written
anew after every part: one that fails, or takes longer than ``--limit`` seconds, has a line that says so, and the others
go on. ``others`` is what other processes of the machine took meanwhile, of all its cores; where that is much, times say
little.

``--data-root`` has ``MNIST/raw``; without it the bytes of recordings are those of scikit-learn's digits. ``--stores``
keeps what the fits read, 4 GB, which is made where it is missing. All takes about half an hour on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lines import FILE

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Part:
    """A script with its arguments.

    Attributes:
        name: For ``--only``, and of the file with what it printed.
        command: As the table shows it; ``STORES`` and ``DIR`` stand for the directories.
        smoke: Arguments of its smallest form, which take the place of all others but the first word.
        threads: OMP_NUM_THREADS; None for PyTorch's own choice.
        works: What it measures; for a line where it wasn't, because that takes a GPU.
    """

    name: str
    command: str
    smoke: str = ""
    threads: int | None = 1
    works: tuple[str, ...] = ()


PARTS = (
    Part("overhead", "store.py overhead --rounds 3", "--smoke", None),
    Part("stages", "stages.py", "--smoke"),
    Part("bytes", "store.py bytes --models lenet --rows 256 --drops 0", "bytes --models mlp --rows 16 --drops 0"),
    Part("reading", "store.py reading", "reading --rows 16"),
    Part("memory", "store.py memory", "memory --columns 50000"),
    Part("zarr", "store.py zarr --repeats 2", "zarr --repeats 1 --columns 10000"),
    Part("ranks", "ranks.py --rounds 3", "--rounds 1 --steps 2"),
    Part("ranks-resnet18", "ranks.py --network resnet18 --batch 32 --rounds 3"),
    Part("training", "training.py --samples 2000 --batch-sizes 64", "--smoke"),
    Part("verify", "growth.py verify --repeats 3", "verify --smoke"),
    Part("sweep", "growth.py sweep", "sweep --smoke"),
    Part("start", "growth.py start --repeats 5", "start --smoke"),
    Part("fit-memory", "growth.py memory", "memory --smoke"),
    Part("fit-1m", "fit.py STORES --problems mom-1m --methods ours celer skglm", "STORES --smoke"),
    Part("fit-200k", "fit.py STORES --problems mom-200k --methods ours celer skglm --kinds path one"),
    Part("fit-25m", "fit.py STORES --problems syn-25m --methods ours --kinds path --memory 2048"),
    Part("repair", "prune.py repair --rounds 2", "repair --small --rounds 1"),
    Part("surgeon", "prune.py surgeon --rounds 2", "surgeon --small --rounds 1"),
    Part("large", "large.py --columns 1", "--smoke"),
    Part("large-share", "large.py --columns 0.1 --stages record fit"),
    Part("gpu-record", "gpu.py record", works=("recording on a GPU",)),
    Part("gpu-fit", "gpu.py fit", works=("fit on a GPU",)),
)


@dataclass
class Outcome:
    """What became of a part: its lines of the table, what failed, seconds, and the share of the cores others had."""

    lines: list[dict[str, str]] = field(default_factory=list)
    failure: str = ""
    seconds: float = 0.0
    others: float = 0.0


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def busy_seconds() -> float:
    """CPU seconds of all processes since the machine started; 0 where the system doesn't say."""
    try:
        numbers = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]))
    except (OSError, ValueError):
        return 0.0
    # user, nice, system, idle, iowait, irq, softirq, steal
    return (sum(numbers[:3]) + sum(numbers[5:8])) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def words_of(part: Part, options: argparse.Namespace) -> list[str]:
    """The command that runs a part."""
    script, *arguments = part.command.split()
    if options.smoke:
        arguments = part.smoke.split()
    elif part.name == "bytes" and options.data_root:
        arguments += ["--dataset", "mnist", "--data-root", f"{options.data_root}"]
    start = [sys.executable, str(HERE / script)]
    if script == "ranks.py":
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", start[1]]
    return [*start, *(str(options.stores) if word == "STORES" else word for word in arguments)]


def shown(part: Part, options: argparse.Namespace) -> str:
    """The command of a part as the table has it."""
    if options.smoke:
        return f"`{part.command.split()[0]} {part.smoke}`"
    data = " --dataset mnist --data-root DIR" if part.name == "bytes" and options.data_root else ""
    return f"`{part.command}{data}`"


def run(part: Part, options: argparse.Namespace) -> Outcome:
    """Run a part; what fails is in the outcome."""
    lines = options.output / f"{part.name}.jsonl"
    lines.unlink(missing_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {FILE: str(lines.resolve()), **({"OMP_NUM_THREADS": f"{part.threads}"} if part.threads else {})}
    started, busy, own = time.perf_counter(), busy_seconds(), own_seconds()
    failure = ""
    words = words_of(part, options)
    with (options.output / f"{part.name}.txt").open("w") as printed:
        printed.write(f"$ {shlex.join([Path(word).name if word == words[0] else word for word in words])}\n")
        printed.flush()
        # A session of its own, so that what it starts can be ended with it.
        started_process = subprocess.Popen(
            words, stdout=printed, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        try:
            _, errors = started_process.communicate(timeout=options.limit)
            if started_process.returncode:
                said = [line for line in errors.splitlines() if line.strip()]
                failure = f"failed: {said[-1].strip() if said else started_process.returncode}"
                printed.write(errors)
        except subprocess.TimeoutExpired:
            failure = f"stopped after {options.limit:g} s"
        finally:
            if started_process.poll() is None:
                os.killpg(started_process.pid, signal.SIGKILL)
                started_process.wait()
    seconds = time.perf_counter() - started
    cores = os.cpu_count() or 1
    others = max(0.0, busy_seconds() - busy - (own_seconds() - own)) / seconds / cores
    found = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    return Outcome(found, failure, seconds, others)


def rows(parts: list[Part], outcomes: dict[str, Outcome], options: argparse.Namespace) -> Iterator[str]:
    """The table, of the parts that have run."""
    yield "| work | ours | best peer | limit | ratio | command |"
    yield "|---|---|---|---|---|---|"
    for part in parts:
        outcome = outcomes.get(part.name)
        if outcome is None:
            continue
        command = shown(part, options)
        for line in outcome.lines:
            cells = [line[name].replace("|", "/") for name in ("work", "ours", "peer", "limit", "ratio")]
            yield f"| {' | '.join(cells)} | {command} |"
        if outcome.failure or not outcome.lines:
            why = outcome.failure.replace("|", "/") or "not measured"
            for work in part.works or (part.name,):
                yield f"| {work} | {why} | – | – | – | {command} |"


def summary(parts: list[Part], outcomes: dict[str, Outcome]) -> Iterator[str]:
    """When and where it ran."""
    import torch

    done = [(part, outcomes[part.name]) for part in parts if part.name in outcomes]
    minutes = sum(outcome.seconds for _, outcome in done) / 60
    cores = len(os.sched_getaffinity(0))
    yield f"{cores} cores, Python {sys.version.split()[0]}, PyTorch {torch.__version__}; {minutes:.1f} minutes.\n"
    yield "| part | seconds | others, % of the cores |"
    yield "|---|---|---|"
    for part, outcome in done:
        yield f"| {part.name} | {outcome.seconds:.0f} | {100 * outcome.others:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [part.name for part in PARTS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--data-root", type=Path, help="of MNIST")
    parser.add_argument("--stores", type=Path, help="where the stores of the fits are kept [a temporary directory]")
    parser.add_argument("--output", type=Path, default=Path("performance"), help="where what is printed goes")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds after which a part is stopped")
    parser.add_argument("--smoke", action="store_true", help="the smallest form of each part, for a test")
    options = parser.parse_args()
    parts = [part for part in PARTS if not options.only or part.name in options.only]
    if options.smoke:
        parts = [part for part in parts if part.smoke or part.works]
    options.output.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory() as folder:
        options.stores = options.stores or Path(folder)
        for part in parts:
            print(f"{part.name} …", file=sys.stderr, flush=True)
            outcomes[part.name] = Outcome() if part.works and not has_gpu() else run(part, options)
            text = "\n".join([*rows(parts, outcomes, options), "", *summary(parts, outcomes), ""])
            (options.output / "table.md").write_text(text)
    print(text, end="")
    if any(outcome.failure for outcome in outcomes.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
