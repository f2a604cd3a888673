"""Submissions: runs that others can check, as small files in results/submissions/.

    found = harness.submissions.read(Path("results"))       # fast: JSON only
    found.rows                      list of dicts, one a run: the columns of a store's `runs`, None where nothing was
                                    measured, and `stale`, `provenance` ("verified" | "self-reported"), `batch`
    found.runs                      the same as a pandas frame
    found.facts                     machine id -> {"machine_id", "hardware", "software"}
    found.samples(run_ids, columns) a frame with columns of a store's `samples`; by default those of
                                    `harness.report.compare.samples_of`: run_id, sample_id, cluster, category,
                                    score, prediction. Sorted by run id, then sample id.

A batch is what one `harness submit` wrote for one model and one set of questions: BATCH/RUN.json for each run, its
controls among them, and BATCH/samples.parquet with the rows of all. `RUN.verification.json` appears when
`harness verify` repeated part of a run and found the same. docs/submitting.md tells how it is used.
"""

from harness.submissions.reading import SAMPLE_COLUMNS, Submissions, read

__all__ = ["SAMPLE_COLUMNS", "Submissions", "read"]
