/** How many runs a property gets: `runs`, times `FUZZ_FACTOR` for long campaigns. */
export function fuzzRuns(runs: number): number {
  const factor = Number.parseInt(process.env['FUZZ_FACTOR'] ?? '1', 10);
  return runs * (Number.isFinite(factor) && factor > 0 ? factor : 1);
}
