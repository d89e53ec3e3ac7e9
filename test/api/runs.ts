/** How often a property runs: `FUZZ_FACTOR` multiplies it for long runs. */
export const runs = (count: number): number => count * Number(process.env['FUZZ_FACTOR'] ?? '1');
