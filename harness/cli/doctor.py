"""`harness doctor`: is this machine fit?"""

from __future__ import annotations

from dataclasses import asdict

from harness.cli import options
from harness.cli.printing import print_json, print_rows, tell
from harness.records.errors import EnvironmentProblem


def doctor(timing: options.Timing = True, store: options.Store = None, json: options.Json = False) -> None:
    """Say what works here, what is missing and how to get it, and how far latency can be trusted (ten seconds).

    Exit 3 if something that is needed is amiss.
    """
    from harness.cli.stores import open_store
    from harness.doctor import AMISS, examine
    from harness.latency.selftest import SECONDS
    from harness.models.quiet import quiet_transformers

    quiet_transformers()
    if timing:
        tell(f"timing equal arms against each other comes last and takes {SECONDS:g} s; --no-timing leaves it out")
    findings = list(examine(open_store(store), SECONDS if timing else None))
    if json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_rows(
            [{"check": f.name, "state": f.state, "found": f.found} for f in findings], ("check", "state", "found")
        )
    for finding in findings:
        if not finding.fit:
            tell(f"{finding.name} {finding.state}: {finding.found}; {finding.advice}")
    amiss = [finding.name for finding in findings if finding.state == AMISS]
    if amiss:
        raise EnvironmentProblem(f"{len(amiss)} of {len(findings)} checks failed: {', '.join(amiss)}")
    tell("all that is needed works; next: harness run --method quietprune")
