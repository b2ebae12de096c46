"""Cases of random commands on random files, and what no command may do, whatever it is given."""

import os
import random
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from fuzzed_files import arrays, damage, data_file, image_folder, odd_files
from fuzzed_networks import network
from fuzzed_options import command, shell
from fuzzed_truths import untruths
from stage_cases import command_of

DOCUMENTED = {0, 2, 3, 4, 5, 6, 7, 8}
"""Exit codes of a command that nobody stops."""

SECONDS = 120
MEMORY = 3 * 2**30

LOG = os.environ.get("CAUSALPRUNE_FUZZ_LOG")
"""Whether to print every command."""

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass
class Result:
    """What a command left."""

    code: int
    output: str
    error: str
    seconds: float


@dataclass
class Finding:
    """Something that a command may not do."""

    kind: str
    command: str
    detail: str
    count: int = 1


@dataclass
class Campaign:
    """Runs cases, each made of the seed and its number alone.

    Attributes:
        runner: Runs commands in forks.
        folder: Where the cases run, one after the other.
        kept: Where the files of a finding stay.
        seed: Seed of all cases.
        findings: By kind.
        codes: How many commands ended with each exit code.
    """

    runner: object
    folder: Path
    kept: Path
    seed: int
    findings: dict = field(default_factory=dict)
    codes: dict = field(default_factory=dict)
    cases: int = 0

    def prepare(self):
        """Make the run directory that damage and options are tried on."""
        world = self.folder / "world"
        world.mkdir(parents=True)
        for stage in ("pretrain", "record", "fit-gamma", "apply-mask", "posttrain", "evaluate", "export"):
            result = self.execute([*command_of(stage, "run"), "--quiet"], world)
            assert result.code == 0, result.error

    def run(self, number):
        """One case."""
        rng = random.Random(f"{self.seed} {number}")
        place = self.folder / "case"
        self.remove(place)
        self.cases += 1
        kind = rng.choice([self._options, self._options, self._data, self._network, self._network, self._damage])
        for words in kind(rng, place):
            if rng.random() < 0.7 and "--quiet" not in words:
                words = [*words, "--quiet"]
            if self.step(words, place, number, in_process=rng.random() > 0.02) != 0 and kind != self._damage:
                return

    def _options(self, rng, place):
        """Commands with random options in a run directory where everything is done, or nothing."""
        if rng.random() < 0.85:
            self.copy(self.folder / "world", place)
            for path in rng.sample(sorted((place / "run").iterdir()), rng.choice([0, 0, 1, 3])):
                self.remove(path)
        else:
            place.mkdir()
        odd_files(place, rng)
        data_file(place / "data.npz", rng)
        (place / "net.py").write_text(network(rng, (30,)))
        for _ in range(rng.choice([1, 1, 2])):
            words = command(rng)
            yield words
            if rng.random() < 0.2:
                yield words

    def _data(self, rng, place):
        """The stages on a random data file."""
        place.mkdir()
        kind = rng.choice(["npz", "npz", "npz", "folder", "factory"])
        if kind == "npz":
            data_file(place / "data.npz", rng)
        elif kind == "folder":
            image_folder(place / "images", rng)
        else:
            made = arrays(rng)
            lines = [f"    {n!r}: np.array({v.tolist()!r}, {str(v.dtype)!r})," for n, v in made.items()]
            text = "import numpy as np\n\nnan, inf = np.nan, np.inf\n\n\ndef arrays():\n    return {\n"
            (place / "data.py").write_text(text + "\n".join(lines) + "\n    }\n")
        if kind == "npz" and rng.random() < 0.1:
            damage(place, rng)
        name = {"npz": "npz:data.npz", "folder": "imagefolder:images", "factory": "data:arrays"}[kind]
        yield from self._stages(rng, ["--dataset", name, "--model", rng.choice(["mlp", "mlp", "", "lenet"])])

    def _network(self, rng, place):
        """The stages with a random network."""
        import numpy as np

        place.mkdir()
        shape = rng.choice([(3,), (6,), (1, 6, 6), (3, 5, 5)])
        count, classes = rng.choice([20, 40, 41]), rng.choice([2, 3])
        generator = np.random.default_rng(rng.getrandbits(32))
        y = np.arange(count) % classes
        x = (generator.normal(size=(count, *shape)) + y.reshape(-1, *[1] * len(shape))).astype("f4")
        np.savez(place / "data.npz", x=x, y=y)
        (place / "net.py").write_text(network(rng, shape))
        yield from self._stages(rng, ["--dataset", "npz:data.npz", "--model", "net:net"])

    def _stages(self, rng, start):
        """All stages, as short as they can be, with a random option here and there."""
        batch, trust = ["--batch-size", rng.choice(["4", "5", "8", "100"])], ["--trust-code"]
        normalize = ["--normalize", rng.choice(["none", "column", "lr"])]
        prune = rng.choice([["--sparsity", "0.5"]] * 3 + [["--sparsity", "0.9"], ["--zero"], ["--sparsity", "0"]])
        granularity = rng.choice([[]] * 3 + [["--granularity", "channel"], ["--granularity", "neuron"]])
        export = rng.choice([["--format", f] for f in ("torch", "safetensors", "csr", "pt2")] + [["--compact"]])
        rate = ["--lr", rng.choice(["0.01", "0.01", "0.1", "10", "1e15", "1e-30"])]
        momentum = ["--momentum", rng.choice(["0", "0", "0", "0.9"])]
        yield ["pretrain", *start, "--epochs", rng.choice(["0", "1", "1"]), *batch]
        yield ["record", "--steps", rng.choice(["1", "2", "6", "6"]), *batch, *trust, *rate, *momentum]
        yield ["fit-gamma", "--json", *normalize, *rng.choice([[]] * 4 + [["--alphas", "3"], ["--l1-ratio", "0.5"]])]
        yield ["apply-mask", "--json", *prune, *trust, *(granularity if "--zero" not in prune else [])]
        yield ["posttrain", "--epochs", "1", *batch, *trust]
        yield ["evaluate", "--json", *trust]
        yield ["export", *export, *trust]
        yield rng.choice([["info"], ["diagnose", "--placebo", "1", "--interventions", "2", *trust]])

    def _damage(self, rng, place):
        """Commands on files of which one is damaged, or is another."""
        self.copy(self.folder / "world", place)
        odd_files(place, rng)
        for _ in range(rng.choice([1, 1, 2])):
            damage(place / "run", rng)
        for _ in range(rng.choice([1, 2, 2])):
            yield command(rng, most=1)
        yield rng.choice([["info"], ["info", "--verify"], ["store", "verify"], ["info", "run/trajectory.zarr"]])

    def step(self, words, place, number, *, in_process=True):
        """Run one command of a case and note what is wrong; returns its exit code."""
        before = self.folder / "before"
        self.remove(before)
        self.copy(place, before)
        result = self.execute(words, place, in_process=in_process)
        self.codes[result.code] = self.codes.get(result.code, 0) + 1
        if LOG:
            print(f"{number} {result.seconds:.2f} s {result.code} {shell(words)[:150]}", flush=True)
        for kind, detail in self.wrong(words, place, result):
            self._note(kind, detail, words, before, number)
        return result.code

    def wrong(self, words, place, result):
        """(kind, detail) of everything that a command did and may not do."""
        found = []
        lines = result.error.splitlines()
        said = [line for line in lines if line.startswith("causalprune: ")]
        everything = result.output + result.error
        if result.code < 0:
            found.append(("hang" if result.code == -14 else f"signal {-result.code}", words[0]))
        elif result.code == 1:
            found.append((f"exit 1: {skeleton((said or lines or [''])[-1], quoted=True)}", everything[-300:]))
        elif result.code not in DOCUMENTED:
            found.append((f"exit {result.code}", everything[-300:]))
        elif result.code and not (words[0] == "info" and result.code == 4 and not lines):
            if len(said) != 1 or ("--quiet" in words and len(lines) != 1):
                found.append((f"not one line: {words[0]}, exit {result.code}", result.error[-600:]))
        elif "--quiet" in words and lines:
            found.append((f"noise: {skeleton(lines[0])}", result.error[-600:]))
        if "Traceback (most recent" in everything:
            found.append(("traceback", everything[-600:]))
        if CONTROL.search(everything):
            found.append((f"control characters: {words[0]}", repr(everything[-300:])))
        if "user:secret" in everything:
            found.append(("password shown", everything[-300:]))
        if result.seconds > SECONDS:
            found.append(("hang", f"{result.seconds:.0f} s"))
        if result.code == 0:
            try:
                texts = untruths(place, words, result.output)
            except Exception as error:
                texts = [f"can't be checked, {type(error).__name__}: {error}"]
            found += [(f"untrue: {skeleton(re.sub(r'[0-9][0-9.e-]+', '#', text))}", text) for text in texts]
        return found

    def execute(self, words, folder, *, in_process=True):
        """Run a command in a folder, in a fork of a process that has loaded everything, or in its own."""
        started = time.monotonic()
        if in_process:
            code, _, error = self.runner(*words, folder=str(folder), seconds=SECONDS, memory=MEMORY)
            return Result(code, self.runner.output, error, time.monotonic() - started)
        line = [sys.executable, "-m", "causalprune", *words]
        kind = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "errors": "surrogateescape"}
        try:
            done = subprocess.run(line, cwd=folder, timeout=SECONDS, check=False, **kind)
        except subprocess.TimeoutExpired:
            return Result(-14, "", "", SECONDS)
        return Result(done.returncode, done.stdout, done.stderr, time.monotonic() - started)

    def _note(self, kind, detail, words, before, number):
        if kind in self.findings:
            self.findings[kind].count += 1
            return
        words = self._shortest(kind, words, before)
        kept = self.kept / f"{len(self.findings):03}"
        self.remove(kept)
        self.copy(before, kept)
        line = f"cd {kept} && {shell(words)}  # case {number}"
        self.findings[kind] = Finding(kind, line, detail)
        print(f"FOUND {kind}\n  {line}\n  {' | '.join(detail.splitlines())[:500]}", flush=True)

    def _shortest(self, kind, words, before):
        """The command without the options that it goes wrong without, too."""
        copy = self.folder / "again"
        for part in reversed(_parts(words)):
            shorter = [word for place, word in enumerate(words) if place not in part]
            self.remove(copy)
            self.copy(before, copy)
            if kind in (k for k, _ in self.wrong(shorter, copy, self.execute(shorter, copy))):
                words = shorter
        return words

    @staticmethod
    def copy(source, target):
        """Copy a folder, pipes and loops included."""
        subprocess.run(["cp", "-a", "--", source, target], check=True)

    @staticmethod
    def remove(path):
        """Remove a file or a folder, if it is there."""
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)


def _parts(words):
    """Places of the words of each option with its value, in order."""
    parts = []
    for place, word in enumerate(words):
        if word.startswith("--"):
            parts.append([place])
        elif parts and len(parts[-1]) == 1 and place == parts[-1][0] + 1 and "=" not in words[place - 1]:
            parts[-1].append(place)
    return parts


def skeleton(line, *, quoted=False):
    """A message without what differs from case to case: numbers, paths, and what is quoted unless that is wanted."""
    line = line.removeprefix("causalprune: ")
    if not quoted:
        line = re.sub(r"'[^']*'|\"[^\"]*\"|\([^)]*\)", "'…'", line)
    return re.sub(r"[0-9]+", "#", re.sub(r"\S*/\S*", "…", line))[:90]
