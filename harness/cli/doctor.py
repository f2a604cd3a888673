"""`harness doctor`: is this machine fit?"""

from __future__ import annotations

from dataclasses import asdict

from harness.cli import options
from harness.cli.printing import print_json, print_rows, tell
from harness.errors import EnvironmentProblem


def doctor(store: options.Store = None, json: options.Json = False) -> None:
    """Check this machine, its packages, the embedded model and suite, and the store. Exit 3 if something is amiss."""
    from harness.cli.quiet import quiet_transformers
    from harness.cli.stores import open_store
    from harness.doctor import examine

    quiet_transformers()
    findings = list(examine(open_store(store)))
    if json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_rows([{"check": f.name, "fit": f.fit, "found": f.found} for f in findings], ("check", "fit", "found"))
    amiss = [finding for finding in findings if not finding.fit]
    for finding in amiss:
        tell(f"{finding.name}: {finding.found}; {finding.advice}")
    if amiss:
        raise EnvironmentProblem(f"{len(amiss)} of {len(findings)} checks failed: {', '.join(f.name for f in amiss)}")
    tell("all is well; next: harness run --method quietprune")
