"""Random options, data, networks and damaged files: every command ends as documented, and what it says is true.

    pytest -m fuzz tests/fuzz -s

``CAUSALPRUNE_FUZZ_SECONDS`` is how long (60), ``CAUSALPRUNE_FUZZ_SEED`` the seed of the cases (the time), and
``CAUSALPRUNE_FUZZ_CASE`` the number of one case to repeat. What was found is printed as commands to copy; their files
stay in ``CAUSALPRUNE_FUZZ_KEEP`` (a folder of pytest's). With ``CAUSALPRUNE_FUZZ_LOG=1`` every command is printed.
"""

import itertools
import os
import time
from pathlib import Path

import pytest
from command_runner import Runner
from fuzzed_cases import Campaign

SECONDS = float(os.environ.get("CAUSALPRUNE_FUZZ_SECONDS", "60"))
SEED = int(os.environ.get("CAUSALPRUNE_FUZZ_SEED", time.time()))
CASE = os.environ.get("CAUSALPRUNE_FUZZ_CASE")
KEEP = os.environ.get("CAUSALPRUNE_FUZZ_KEEP")


@pytest.mark.fuzz
@pytest.mark.timeout(0)
def test_every_command_ends_as_documented_and_says_what_is_true(tmp_path):
    kept = Path(KEEP or tmp_path / "kept")
    kept.mkdir(parents=True, exist_ok=True)
    print(f"\nCAUSALPRUNE_FUZZ_SEED={SEED}", flush=True)
    runner = Runner()
    campaign = Campaign(runner, tmp_path / "cases", kept, SEED)
    try:
        campaign.prepare()
        end = time.monotonic() + SECONDS
        for number in [int(CASE)] if CASE else itertools.count():
            if time.monotonic() > end:
                break
            campaign.run(number)
    finally:
        runner.close()
    codes = ", ".join(f"{count:,} × {code}" for code, count in sorted(campaign.codes.items()))
    print(f"{campaign.cases:,} cases, {sum(campaign.codes.values()):,} commands; exit codes: {codes}")
    report = "\n".join(f"{f.kind} ({f.count} times)\n    {f.command}" for f in campaign.findings.values())
    assert not campaign.findings, f"seed {SEED}:\n{report}"
