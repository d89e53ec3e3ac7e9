// Before anything else is loaded, which would be in vain.
if (process.argv[2] === 'agent') await (await import('./base/io/lean-process.js')).becomeLean();
const { reportBug, runCli } = await import('./cli/program.js');

/** What nobody caught is a bug: it is shown, and the process ends. */
function onUncaught(error: unknown): void {
  process.exit(reportBug(error));
}

process.on('uncaughtException', onUncaught);
process.on('unhandledRejection', onUncaught);
// A reader that went away (`shoal … | head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  onUncaught(error);
});

process.exit(await runCli(process.argv.slice(2)));
